"""How a round's chunks are split over processes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """The chunks of a round that one process handles: `offset` to `offset + count` of `size`."""

    offset: int
    count: int
    size: int


def shares(size: int, processes: int) -> list[Share]:
    """Split a round of `size` chunks over processes: contiguous, as even as possible."""
    bounds = [size * i // processes for i in range(processes + 1)]
    return [Share(a, b - a, size) for a, b in zip(bounds, bounds[1:])]
