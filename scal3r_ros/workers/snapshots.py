"""Snapshots of the committed memory: where they lie in the store, and on disk the newest two."""

from __future__ import annotations

from pathlib import Path

from scal3r_ros.files import link_or_copy, write_bytes
from scal3r_ros.workers.packing import BadSnapshot, unseal


def snapshot_key(request: int) -> str:
    """Where rank 0 leaves the committed memory for a request, in the store."""
    return f"snapshot/{request}"


def write_snapshot(path: Path, data: bytes) -> None:
    """Replace the file at `path` at once; what was there becomes `previous(path)`. Raises
    `SaveFailed`."""
    if path.exists():
        link_or_copy(path, previous(path))
    write_bytes(path, data)


def read_snapshot(path: Path) -> tuple[bytes, list[str]]:
    """The newest whole snapshot at `path`, and one sentence per file that had to be refused.

    Raises `FileNotFoundError` if there is none at all and `BadSnapshot` if none is whole.
    """
    refused: list[str] = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        data = candidate.read_bytes()
        try:
            unseal(data)
        except BadSnapshot as error:
            refused.append(f"{candidate}: {error}")
        else:
            return data, refused
    if refused:
        raise BadSnapshot("; ".join(refused))
    raise FileNotFoundError(f"no snapshot at {path}")


def previous(path: Path) -> Path:
    """Where the snapshot before the newest one is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")
