"""Voxel grid of fused points: weighted means per occupied voxel, as sorted arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REACH = 1 << 20
"""Voxels per axis on either side of the origin; points beyond are dropped."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """Occupied voxels in ascending order of key. 30 bytes each."""

    keys: np.ndarray
    """(N,) int64, three 21-bit cell numbers."""
    points: np.ndarray
    """(N, 3) float32 confidence-weighted mean position."""
    colors: np.ndarray
    """(N, 3) float16 confidence-weighted mean colour, 0 to 255."""
    weights: np.ndarray
    """(N,) float32 sum of confidence."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.keys, self.points, self.colors, self.weights))

    @staticmethod
    def empty() -> Voxels:
        return Voxels(
            np.zeros(0, np.int64),
            np.zeros((0, 3), np.float32),
            np.zeros((0, 3), np.float16),
            np.zeros(0, np.float32),
        )

    @staticmethod
    def bin(points: np.ndarray, colors: np.ndarray, weights: np.ndarray, size: float) -> Voxels:
        """Fuse points (N, 3) float32 with colours (N, 3) and weights (N,) into voxels of edge
        `size`."""
        cells = np.floor(points * np.float32(1.0 / size))
        inside = (np.abs(cells) < REACH).all(axis=1)
        if not inside.all():
            cells, points, colors = cells[inside], points[inside], colors[inside]
            weights = weights[inside]
        if not len(points):
            return Voxels.empty()
        cells = cells.astype(np.int64) + REACH
        keys = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        ordered = weights[order].astype(np.float32)
        total = np.add.reduceat(ordered, starts)
        columns = [
            np.add.reduceat(side[order, axis] * ordered, starts) / total
            for side in (points, colors)
            for axis in range(3)
        ]
        means = np.stack(columns, axis=1).astype(np.float32)
        return Voxels(keys[starts], means[:, :3].copy(), means[:, 3:].astype(np.float16), total)

    def merge(self, other: Voxels) -> Voxels:
        """Union of two grids with the same voxel size; shared voxels become weighted means."""
        if not len(self):
            return other
        if not len(other):
            return self
        place = np.searchsorted(self.keys, other.keys)
        shared = self.keys[np.minimum(place, len(self) - 1)] == other.keys
        at, fresh = place[shared], ~shared
        weights = self.weights.copy()
        weights[at] += other.weights[shared]
        share = (other.weights[shared] / weights[at])[:, None]
        points, colors = self.points.copy(), self.colors.copy()
        points[at] += share * (other.points[shared] - points[at])
        mixed = colors[at].astype(np.float32)
        colors[at] = mixed + share * (other.colors[shared].astype(np.float32) - mixed)
        before = place[fresh]
        return Voxels(
            np.insert(self.keys, before, other.keys[fresh]),
            np.insert(points, before, other.points[fresh], axis=0),
            np.insert(colors, before, other.colors[fresh], axis=0),
            np.insert(weights, before, other.weights[fresh]),
        )

    def coarsen(self, size: float) -> Voxels:
        """The same points in larger voxels of edge `size`."""
        return Voxels.bin(self.points, self.colors.astype(np.float32), self.weights, size)
