"""Temporary folders that do not outlive their process, even one that is killed.

Every folder holds a lock that its process keeps. Whoever makes the next one in the same place
first removes those whose lock is free: their process is gone, however it ended.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

_LOCK = ".in_use"


class ScratchFolder:
    """A folder until `remove`, or until the process ends."""

    def __init__(self, prefix: str, parent: str | Path | None = None) -> None:
        """In `parent`, by default the system's folder for temporary files. Raises `OSError`."""
        place = Path(parent or tempfile.gettempdir())
        _sweep(place, prefix)
        self.path, lock = _locked_folder(place, prefix)
        self._removal = weakref.finalize(self, _remove, self.path, lock)

    def remove(self) -> None:
        """Delete the folder with all that it holds; a second call does nothing."""
        self._removal()


def _locked_folder(place: Path, prefix: str) -> tuple[Path, int]:
    """A new folder and its lock, again if somebody swept it before it was locked."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        with suppress(FileNotFoundError):
            lock = os.open(path / _LOCK, os.O_WRONLY | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _sweep(place: Path, prefix: str) -> None:
    """Remove what dead processes of ours have left; what is not ours has no lock file and stays."""
    for folder in place.glob(f"{prefix}*"):
        with suppress(OSError):  # another process is at it, or it belongs to another user
            lock = os.open(folder / _LOCK, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
