"""A bound for calls that have none of their own.

A store whose host is stopped but whose connection lives answers no request, and the client library
waits for ever. Such calls run in a thread that is left behind when the deadline passes; it ends
when the connection does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DeadlinePassed(TimeoutError):
    """A call did not return in time; the message names the call."""


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """Result of `call`, or `DeadlinePassed` after `seconds`."""
    outcome: list[T] = []
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
        raise DeadlinePassed(f"{what} did not finish within {seconds:g} s")
    return outcome[0]
