"""Keeps a native library from taking over signals when it is imported.

pycolmap installs a handler for SIGTERM that prints a native stack trace and ends the process: a
node would go down without saving. Python can install handlers in the main thread only, while a
network is loaded in others, so the handlers are put back where they belong, in the C library.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_KEPT = (signal.SIGTERM, signal.SIGINT)
_ROOM = 1024
"""Bytes that are enough for a struct sigaction of every platform."""


@contextmanager
def kept_signal_handlers() -> Iterator[None]:
    """Whatever is imported inside, SIGTERM and SIGINT do afterwards what they did before."""
    library = ctypes.CDLL(None, use_errno=True)
    before = {number: ctypes.create_string_buffer(_ROOM) for number in _KEPT}
    for number, action in before.items():
        _check(library.sigaction(int(number), None, action))
    try:
        yield
    finally:
        for number, action in before.items():
            _check(library.sigaction(int(number), action, None))


def _check(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), "sigaction failed")
