"""Keeps the node running when a message is bad: that message is left out, counted by kind, logged
now and then, and shown in the diagnostics."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

REPEAT = 5.0
"""Seconds between two log entries about one kind of message."""


class InputTrouble:
    """What is wrong with the inputs of one room: publishers that cannot be heard, bad messages."""

    def __init__(self, logger: Any) -> None:
        self.incompatible: list[str] = []
        """Publishers that cannot be heard, newest last."""
        self.counts: Counter[str] = Counter()
        """`malformed_KIND`: messages that were left out."""
        self._logger = logger
        self._told_at: dict[str, float] = {}

    def guarded(self, kind: str, callback: Callable[..., None]) -> Callable[..., None]:
        """The callback, which no message can make raise."""
        self.counts[f"malformed_{kind}"] += 0

        def take(*message: Any) -> None:
            try:
                callback(*message)
            except Exception as error:  # the border: whatever it is, it costs this message
                self.left_out(kind, error)

        return take

    def left_out(self, kind: str, error: Exception) -> None:
        """Count and tell of a message that could not be used; not a `ValueError`: with a trace."""
        self.counts[f"malformed_{kind}"] += 1
        now = time.monotonic()
        if now - self._told_at.get(kind, -REPEAT) >= REPEAT:
            self._told_at[kind] = now
            reason = str(error) if isinstance(error, ValueError) else traceback.format_exc()
            self._logger.warning(f"ignored a message ({kind}): {reason}")


def snapshot(counts: Counter[str]) -> dict[str, int]:
    """Copy of a counter that another thread may be growing.

    `dict` copies in one step of the interpreter; a loop over the items raises `RuntimeError` when a
    key is added meanwhile.
    """
    return dict(counts)
