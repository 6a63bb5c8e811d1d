"""Atomic saves: a reader sees the complete older file or the complete new one, never a part."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class SaveFailed(RuntimeError):
    """A file could not be written; what was there before is untouched."""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that replaces `path` only when the block ends without an exception.

    The bytes are on the disk before the name changes, so a crash or a power cut leaves the older
    file. Raises `SaveFailed` when the system cannot write (disk full, no permission).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise SaveFailed(_explain(path, error)) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        os.unlink(name)
        raise SaveFailed(_explain(path, error)) from error
    except BaseException:
        os.unlink(name)
        raise


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turn what the system says against writing `path` into `SaveFailed`."""
    try:
        yield
    except OSError as error:
        raise SaveFailed(_explain(Path(path), error)) from error


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text to `path` atomically."""
    write_bytes(path, text.encode())


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Make `target` the same file as `source`, or a copy of the same age where the file system
    cannot link them; for files that nobody changes. Atomic; raises `SaveFailed`."""
    target = Path(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            shutil.copy2(source, partial)
        os.replace(partial, target)
        partial.unlink(missing_ok=True)  # still there if both were one file before


def _explain(path: Path, error: OSError) -> str:
    reasons = {
        errno.ENOSPC: "the disk is full; free some space and run again with --resume",
        errno.EDQUOT: "the disk quota is used up; free some space and run again with --resume",
        errno.EACCES: "permission denied; choose another output folder",
        errno.EROFS: "the file system is read-only; choose another output folder",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return f"cannot write {path}: {reason}. Files written before are unchanged"
