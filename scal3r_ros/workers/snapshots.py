"""Snapshots of the committed memory: where they lie in the store, and on disk the newest two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scal3r_ros.files import link_or_copy, write_bytes
from scal3r_ros.workers.packing import BadSnapshot, unseal


@dataclass(frozen=True)
class Snapshot:
    """A committed memory, packed."""

    data: bytes
    chunks: int
    round: int
    fingerprint: str
    """Of the weights it belongs to."""

    @classmethod
    def of(cls, data: bytes) -> Snapshot:
        """Raises `BadSnapshot` for what no worker can take over."""
        header, arrays = unseal(data)
        for name, values in arrays.items():
            if not np.isfinite(values).all():
                raise BadSnapshot(f"the snapshot holds numbers that are not finite in {name}")
        try:
            version, committed = int(header["version"]), int(header["committed"])
            return cls(data, version, committed, header["fingerprint"])
        except (KeyError, ValueError) as error:
            raise BadSnapshot(
                f"the snapshot's header {header} lacks fingerprint, version or committed "
                f"({error!r}); take one that save_context has written"
            ) from error

    def check_weights(self, fingerprint: str) -> None:
        """Raises `BadSnapshot` if a worker has other weights."""
        if fingerprint != self.fingerprint:
            raise BadSnapshot(
                f"the snapshot belongs to weights {self.fingerprint[:12]}, the workers have "
                f"{fingerprint[:12]}; load the checkpoint it was made with"
            )


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
