"""Files that a crash, a power cut or a stranger cannot spoil.

Saves are atomic: a reader sees the complete older file or the complete new one, never a part.
Archives of arrays are checked before they are read: what they declare must be there, and nothing in
them is executed.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import tokenize
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np


class SaveFailed(RuntimeError):
    """A file could not be written; what was there before is untouched."""


class BadArchive(ValueError):
    """A file is no archive of arrays as this program writes them, or is damaged."""


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
        sync_folder(path.parent)
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
            with open(partial, "rb") as copy:
                os.fsync(copy.fileno())
        os.replace(partial, target)
        partial.unlink(missing_ok=True)  # still there if both were one file before


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays to `path` atomically, as numpy's npz without compression."""
    with atomic_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle


class StoredArrays(Mapping[str, np.ndarray]):
    """Arrays of an archive, each read when it is asked for; raises `BadArchive`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        self._names = {name.removesuffix(".npy"): name for name in archive.namelist()}

    def __getitem__(self, name: str) -> np.ndarray:
        with _damage_named(self._path), self._archive.open(self._names[name]) as member:
            return _read_array(member, self._archive.getinfo(self._names[name]).file_size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def open_arrays(path: str | Path) -> Iterator[StoredArrays]:
    """Open what `write_arrays` wrote; raises `BadArchive` unless the file can hold what it says."""
    path = Path(path)
    with open_regular(path) as file:
        with _damage_named(path):
            archive = zipfile.ZipFile(file)
            _check_members(archive, os.fstat(file.fileno()).st_size)
        yield StoredArrays(path, archive)


def check_archive(path: str | Path) -> None:
    """Raise `BadArchive` unless all members of a zip file can be as large as they say."""
    with open_arrays(path):
        pass


@contextmanager
def open_regular(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for reading, but no pipe, which would wait for ever, and no device, which would
    never end; raises `BadArchive`, or `OSError` if it is not there."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BadArchive(f"{path} is no regular file")
        yield file


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Members are stored as they are, so all of them together are no larger than the file."""
    members = archive.infolist()
    if len({member.filename for member in members}) < len(members):
        raise ValueError("it has two members of one name")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its members are compressed")
    declared = sum(max(member.file_size, member.compress_size) for member in members)
    if declared > size:
        raise ValueError(f"it declares {declared} bytes and has {size}")


def _read_array(member: IO[bytes], size: int) -> np.ndarray:
    """One array in numpy's own format, of plain values, that fills its member of `size` bytes."""
    version = np.lib.format.read_magic(member)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array has the unknown format {version}")
    shape, fortran, dtype = readers[version](member)
    count, rest = int(np.prod(shape, dtype=object)), size - member.tell()
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError(f"an array of {dtype} with shape {shape} is no plain data")
    if count * dtype.itemsize != rest:
        raise ValueError(f"an array of {dtype} with shape {shape} cannot have {rest} bytes")
    data = np.frombuffer(bytearray(member.read()), np.uint8)
    if len(data) != rest:
        raise ValueError(f"an array ends after {len(data)} of {rest} bytes")
    values = data.view(dtype) if rest else np.zeros(count, dtype)
    return values.reshape(shape, order="F" if fortran else "C")


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Raise `BadArchive` for any error that damaged bytes cause in the readers of zip and npy."""
    try:
        yield
    except BadArchive:
        raise
    except (
        ArithmeticError,
        EOFError,
        NotImplementedError,
        OSError,
        RuntimeError,
        SyntaxError,
        TypeError,
        ValueError,
        tokenize.TokenError,
        zipfile.BadZipFile,
    ) as error:
        raise BadArchive(f"{path} is damaged: {error}") from error


def sync_folder(folder: Path) -> None:
    """Names reach the disk with their folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(path: Path, error: OSError) -> str:
    reasons = {
        errno.ENOSPC: "the disk is full; free some space and run again with --resume",
        errno.EDQUOT: "the disk quota is used up; free some space and run again with --resume",
        errno.EACCES: "permission denied; choose another output folder",
        errno.EROFS: "the file system is read-only; choose another output folder",
        errno.ENOTDIR: "a file is in the way; choose another output folder",
        errno.EEXIST: "a file is in the way; choose another output folder",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return f"cannot write {path}: {reason}. Files written before are unchanged"
