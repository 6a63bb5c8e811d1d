"""Voxel grid of fused points: weighted means per occupied voxel, as sorted arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEY_RANGE = 1 << 20
"""Voxels per axis on either side of the origin; points beyond are dropped."""


VOXEL_BYTES = 30


@dataclass(frozen=True, eq=False)
class Voxels:
    """Occupied voxels in ascending order of key, `VOXEL_BYTES` each."""

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

    def of(self, rows: np.ndarray | slice) -> Voxels:
        """Those that a mask (N,) or a slice picks."""
        return Voxels(self.keys[rows], self.points[rows], self.colors[rows], self.weights[rows])

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
        """Fuse points (3, N) float32 with colours (3, N) and weights (N,) into voxels of edge
        `size`.

        Coordinates and colour channels come as planes. Sums run in the order of the points, so that
        the result does not depend on the sorting algorithm.
        """
        cells = np.floor(points * np.float32(1.0 / size))
        inside = (np.abs(cells) < KEY_RANGE).all(axis=0)
        if not inside.all():
            cells, points, colors = cells[:, inside], points[:, inside], colors[:, inside]
            weights = weights[inside]
        if not len(weights):
            return Voxels.empty()
        keys = cell_keys(cells)
        order = np.argsort(keys)
        ordered = keys[order]
        first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        voxel = np.empty(len(keys), np.int64)
        voxel[order] = np.cumsum(first) - 1
        total = np.bincount(voxel, weights)
        means = np.empty((len(total), 6), np.float32)
        for column, plane in enumerate((*points, *colors)):
            means[:, column] = np.bincount(voxel, plane * weights) / total
        points, colors = means[:, :3].copy(), means[:, 3:].astype(np.float16)
        return Voxels(ordered[first], points, colors, total.astype(np.float32))

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
        return Voxels.bin(self.points.T, self.colors.T.astype(np.float32), self.weights, size)


def cell_keys(cells: np.ndarray) -> np.ndarray:
    """(N,) int64 keys of integral cell coordinates (3, N) within `KEY_RANGE`."""
    keys = np.zeros(cells.shape[1], np.int64)
    for axis in range(3):
        keys <<= 21
        keys |= cells[axis].astype(np.int64) + KEY_RANGE
    return keys
