"""A bound for calls that have none of their own.

A store whose host is stopped but whose connection lives answers no request, and the client library
waits for ever. Such calls run in a thread that is left behind when the deadline passes; it ends
when the connection does.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")
_EXIT_PATIENCE = 3.0  # seconds
_left_behind: list[threading.Thread] = []


class DeadlinePassed(TimeoutError):
    """A call did not return in time; the message names the call."""


def within(seconds: float, what: str, call: Callable[[], Answer]) -> Answer:
    """Result of `call`, or `DeadlinePassed` after `seconds`."""
    outcome: list[Answer] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # handed to the caller below
            problem.append(error)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    if problem:
        raise problem[0]
    if not outcome:
        _leave_behind(thread)
        raise DeadlinePassed(f"{what} did not finish within {seconds:g} s")
    return outcome[0]


def _leave_behind(thread: threading.Thread) -> None:
    """A thread that comes back from native code while the interpreter ends would abort the process;
    the exit waits a little for it."""
    if not _left_behind:
        atexit.register(_wait_for_the_last)
    _left_behind[:] = [*(t for t in _left_behind if t.is_alive()), thread]


def _wait_for_the_last() -> None:
    deadline = time.monotonic() + _EXIT_PATIENCE
    for thread in _left_behind:
        thread.join(max(0.0, deadline - time.monotonic()))
