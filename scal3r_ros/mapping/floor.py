"""The floor below a camera that moves: its height at every place, ramps included.

The lowest points of coarse cells are candidates. From those around the cameras the floor grows to
neighbours whose height differs by less than a ramp allows, so that it follows slopes, stops at
boxes and at holes, and is known beyond them only where it leads around.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

CELL = 0.25
"""Edge of a coarse cell, metres."""
_LOWEST = 0.1
"""Quantile of the heights in a cell that is taken as its lowest: some depths are wrong."""
_ENOUGH = 4
"""Points that a cell needs to tell its height."""
_SEED_RANGE = 3.0
"""Distance from the cameras within which the floor under them is looked for, metres."""
_LEVEL = 0.1
"""Thickness of the layer that counts as one level where the floor begins, metres."""


class NoFloor(ValueError):
    """No floor was seen below the cameras."""


@dataclass(frozen=True, eq=False)
class FloorHeights:
    """Height of the floor by coarse cell, metres."""

    origin: np.ndarray
    """(2,) corner of the first cell."""
    heights: np.ndarray
    """(X, Y); where no floor was seen, that of the nearest place where it was."""
    seen: np.ndarray
    """(X, Y) whether floor was seen there."""

    def at(self, places: np.ndarray) -> np.ndarray:
        """Heights (N,) at places (N, 2), between the centres of cells by their four neighbours."""
        position = (places - self.origin) / CELL - 0.5
        return ndimage.map_coordinates(self.heights, position.T, order=1, mode="nearest")


def find_floor(
    points: np.ndarray, cameras: np.ndarray, max_slope: float, step: float
) -> FloorHeights:
    """Floor seen by `cameras` (S, 3) among `points` (N, 3), metres, third axis up.

    Neighbouring cells are one floor if their heights differ by at most `step` and `max_slope` times
    their distance. Raises `NoFloor`.
    """
    origin = np.floor(np.minimum(points, cameras.min(axis=0)).min(axis=0)[:2] / CELL) * CELL
    tolerance = step + max_slope * CELL
    lowest = _lowest(points, origin, tolerance)
    floor = _grown(lowest, _seed(lowest, cameras, origin), tolerance)
    _, nearest = ndimage.distance_transform_edt(~floor, return_indices=True)
    return FloorHeights(origin, lowest[tuple(nearest)], floor)


def _lowest(points: np.ndarray, origin: np.ndarray, tolerance: float) -> np.ndarray:
    """Low quantile of the heights in each coarse cell (X, Y), NaN where too few points are, or
    where half of them are higher by more than `tolerance`: walls would lead the floor up, and the
    sides of a hole down."""
    cells = ((points[:, :2] - origin) / CELL).astype(np.int64)
    shape = cells.max(axis=0) + 1
    keys = cells[:, 0] * shape[1] + cells[:, 1]
    order = np.lexsort((points[:, 2], keys))
    present, first, count = np.unique(keys[order], return_index=True, return_counts=True)
    heights = points[order, 2]
    low, middle = (heights[first + (share * count).astype(np.int64)] for share in (_LOWEST, 0.5))
    flat = (count >= _ENOUGH) & (middle - low <= tolerance)
    lowest = np.full(int(shape.prod()), np.nan)
    lowest[present[flat]] = low[flat]
    return lowest.reshape(shape)


def _seed(lowest: np.ndarray, cameras: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Cells (X, Y) near the cameras and at the level that most of them have, well below the
    cameras."""
    centres = np.moveaxis(np.indices(lowest.shape), 0, -1) * CELL + origin + CELL / 2.0
    away = np.full(lowest.shape, np.inf)
    height = np.zeros(lowest.shape)
    for camera in cameras[:: max(1, len(cameras) // 8)]:
        distance = np.linalg.norm(centres - camera[:2], axis=-1)
        height = np.where(distance < away, camera[2], height)
        away = np.minimum(away, distance)
    with np.errstate(invalid="ignore"):
        near = (away < _SEED_RANGE) & (lowest < height - _LEVEL)
    if not near.any():
        raise NoFloor("no points below the cameras within 3 m; turn the camera to the floor")
    depth = np.where(near, height - lowest, np.nan)
    levels = np.sort(depth[near])
    fits = np.searchsorted(levels, levels + _LEVEL) - np.arange(len(levels))
    start = levels[int(fits.argmax())]
    with np.errstate(invalid="ignore"):
        return near & (depth >= start) & (depth <= start + _LEVEL)


def _grown(lowest: np.ndarray, floor: np.ndarray, tolerance: float) -> np.ndarray:
    """All cells (X, Y) that the floor reaches from where it began."""
    known = np.isfinite(lowest)
    while True:
        before = int(floor.sum())
        height = np.where(floor, lowest, np.nan)
        for axis, shift in ((0, 1), (0, -1), (1, 1), (1, -1)):
            beside = _shifted(height, axis, shift)
            with np.errstate(invalid="ignore"):
                floor = floor | (known & (np.abs(lowest - beside) <= tolerance))
        if int(floor.sum()) == before:
            return floor


def _shifted(values: np.ndarray, axis: int, shift: int) -> np.ndarray:
    """The neighbour's value, NaN beyond the edge."""
    moved = np.roll(values, shift, axis)
    edge = [slice(None), slice(None)]
    edge[axis] = slice(0, 1) if shift > 0 else slice(-1, None)
    moved[tuple(edge)] = np.nan
    return moved
