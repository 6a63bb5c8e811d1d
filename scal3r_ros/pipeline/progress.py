"""How far long work is, and a way to stop it: shared between the thread that works and others."""

from __future__ import annotations

import threading


class Cancelled(RuntimeError):
    """The work was stopped on request; what it would have changed is as it was."""


class Progress:
    """The worker says `at`, others read and may `cancel`."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self.stage = "waiting for its turn"
        self.share = -1.0
        """Of the whole that is done, 0 to 1; negative while that is unknown."""

    def at(self, stage: str, share: float = -1.0) -> None:
        """Begin a stage; raises `Cancelled` if that was asked for."""
        if self._cancelled.is_set():
            raise Cancelled(f"cancelled before: {stage}")
        self.stage, self.share = stage, share

    def cancel(self) -> None:
        """Stop the work at its next stage."""
        self._cancelled.set()
