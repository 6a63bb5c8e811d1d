"""Named arrays with a header as one run of bytes, and their ways between processes.

The bytes are a safetensors file: nothing in them is ever executed. The same bytes travel through
collectives, rest in the rendezvous store, and are written to disk (`snapshots.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.numpy import load, save

from scal3r_ros.workers.deadline import within
from scal3r_ros.workers.group import Group
from scal3r_ros.workers.membership import GroupBroken

_PART = 4 << 20  # the store refuses values of 8 MiB and more
_SUM = "sha256"


class BadSnapshot(ValueError):
    """The bytes are not a complete snapshot of arrays."""


def pack(header: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> bytes:
    """One run of bytes."""
    return save({k: np.asarray(v, order="C") for k, v in arrays.items()}, metadata=dict(header))


def unpack(data: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Header and arrays; `BadSnapshot` if anything is cut off."""
    try:
        return _metadata(data), load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadSnapshot(f"not a complete snapshot ({len(data)} bytes): {error}") from error


def seal(header: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> bytes:
    """As `pack`, with a checksum of the arrays; for what is kept."""
    return pack({**header, _SUM: checksum(arrays)}, arrays)


def unseal(data: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """As `unpack`; `BadSnapshot` also if anything has changed since `seal`."""
    header, arrays = unpack(data)
    if checksum(arrays) != header.pop(_SUM, ""):
        raise BadSnapshot("the snapshot's arrays do not have the checksum it was saved with")
    return header, arrays


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.asarray(arrays[name], order="C")
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.data if value.size else b"")
    return digest.hexdigest()


def broadcast_bytes(group: Group, data: bytes | None, source: int) -> bytes:
    """`data` of rank `source` on every rank; the others pass None."""
    length = torch.tensor([len(data) if data is not None else 0], device=group.device)
    count = int(group.broadcast(length, source))
    return _bytes_of(group.broadcast(_tensor_of(data, count, group), source))


def send_bytes(group: Group, data: bytes, to: int) -> None:
    """Hand bytes to one rank, which has to `receive_bytes`."""
    group.send(torch.tensor([len(data)], device=group.device), to)
    group.send(_tensor_of(data, len(data), group), to)


def receive_bytes(group: Group, source: int) -> bytes:
    """What rank `source` sends."""
    count = int(group.receive(torch.zeros(1, dtype=torch.int64, device=group.device), source))
    return _bytes_of(group.receive(_tensor_of(None, count, group), source))


def upload(store: dist.Store, key: str, data: bytes, timeout: float) -> None:
    """Leave bytes in the store under `key`, replacing what is there."""

    def put() -> None:
        parts = range(0, len(data), _PART)
        for i, start in enumerate(parts):
            part = data[start : start + _PART]
            store.set(f"{key}/{i}", part)  # type: ignore[arg-type]  # the stub knows text only
        store.set(f"{key}/length", str(len(data)))

    _bounded(timeout, f"storing {key}", put)


def download(store: dist.Store, key: str, timeout: float) -> bytes:
    """Bytes that somebody has left under `key`."""

    def fetch() -> bytes:
        length = int(store.get(f"{key}/length"))
        return b"".join(store.get(f"{key}/{i}") for i in range(-(-length // _PART)))

    return _bounded(timeout, f"fetching {key}", fetch)


def discard(store: dist.Store, key: str, timeout: float) -> None:
    """Free what `upload` has stored."""

    def drop() -> None:
        length = int(store.get(f"{key}/length"))
        for name in ("length", *range(-(-length // _PART))):
            store.delete_key(f"{key}/{name}")

    _bounded(timeout, f"discarding {key}", drop)


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length]).get("__metadata__", {}))


def _tensor_of(data: bytes | None, count: int, group: Group) -> torch.Tensor:
    if data is None:
        return torch.empty(count, dtype=torch.uint8, device=group.device)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(group.device)


def _bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().numpy().tobytes()


def _bounded(timeout: float, what: str, call):
    try:
        return within(timeout, what, call)
    except (RuntimeError, TimeoutError) as error:
        raise GroupBroken(f"{what}: {error}") from error
