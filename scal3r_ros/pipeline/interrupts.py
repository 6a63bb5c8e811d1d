"""Ctrl-C and SIGTERM that wait until the map is consistent, so that they never cost a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType


class WaitingInterrupts:
    """While this is entered, an interrupt acts at once if `consistent()`, and otherwise at the next
    `act`. What it does is up to the handlers that were there before; one that the system handles
    is left alone, and so are threads other than the main one, which get no signals."""

    def __init__(self, consistent: Callable[[], bool]) -> None:
        self._consistent = consistent
        self._before: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._waiting: int | None = None

    def __enter__(self) -> WaitingInterrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if callable(before):
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._receive:
                signal.signal(number, before)

    def act(self) -> None:
        """Let an interrupt that waits happen now."""
        if self._waiting is not None:
            number, self._waiting = self._waiting, None
            self._before[number](number, None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._consistent():
            self._before[number](number, frame)
        else:
            self._waiting = number
