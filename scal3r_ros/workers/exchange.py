"""The exchange between the memory unit's `gradient` and `update`, over the processes of a group.

One all-reduce per memory layer sums the three gradient matrices of all processes, so every process
updates its fast weights from the same sum. A process without a chunk brings zeros. In a group of
one it is the same code, and the sum is the process' own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from scal3r_ros.workers.group import Group

Gradients = TypeVar("Gradients", bound=NamedTuple)


@dataclass
class Traffic:
    """What the exchange cost so far."""

    collectives: int = 0
    bytes_sent: int = 0
    """By this rank, in a ring: 2 (R - 1) / R of the tensor."""
    seconds: float = 0.0
    """Inside collectives, waiting for slower ranks included."""


class AllReduceSync:
    """`sync(layer, gradients)` for one round: the sum over all processes, bitwise the same on
    all."""

    def __init__(self, group: Group, wire: torch.dtype = torch.float32):
        self.group = group
        self.wire = wire
        self.traffic = Traffic()

    def __call__(self, layer: int, gradients: Gradients) -> Gradients:
        start = time.monotonic()
        flat = torch.cat([g.detach().reshape(-1) for g in gradients])
        moved = flat.to(self.group.device, self.wire)
        self.group.sum(moved)
        self._count(moved, time.monotonic() - start)
        return unflatten(moved.to(flat.device, torch.float32), gradients)

    def _count(self, moved: Tensor, seconds: float) -> None:
        self.traffic.collectives += 1
        self.traffic.bytes_sent += ring_bytes(moved.numel() * moved.element_size(), self.group.size)
        self.traffic.seconds += seconds


def ring_bytes(payload: int, size: int) -> int:
    """Bytes that each of `size` ranks sends when a ring all-reduces `payload` bytes."""
    return 2 * (size - 1) * payload // size


def unflatten(flat: Tensor, like: Gradients) -> Gradients:
    """One long vector back to the matrices of `like`."""
    parts = flat.split([g.numel() for g in like])
    return type(like)(*(part.view_as(g) for part, g in zip(parts, like)))
