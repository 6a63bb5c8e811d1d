"""Whether two places that were reconstructed together look at the same surfaces there."""

from __future__ import annotations

import numpy as np

from scal3r_ros.mapping.camera import unproject, valid_pixels
from scal3r_ros.records import ChunkPrediction

VOXEL = 0.02
"""Edge of a cell relative to the median depth."""
FOOTPRINT = 2.0
"""A cell is at least this many pixels wide at the median depth, so that images of few pixels leave
no holes."""
DENSE = 40_000
"""Points of one place that are compared."""


def joint_overlap(first: ChunkPrediction, second: ChunkPrediction) -> float:
    """Share of the points of one place in cells that the other has points in or beside, of the two
    directions the smaller one: 0 for places that were only put beside each other.

    Both hold frames of one prediction; points below half the median confidence do not count.
    """
    medians = [_typical_depth(side) for side in (first, second)]
    if not all(np.isfinite(medians)):
        return 0.0
    distance = float(np.median(medians))
    pixel = distance / float(np.median(first.intrinsics[:, 0, 0]))
    size = max(VOXEL * distance, FOOTPRINT * pixel)
    cells = [np.floor(_confident_points(side) / size).astype(np.int64) for side in (first, second)]
    return min(_share_near(cells[0], cells[1]), _share_near(cells[1], cells[0]))


def _typical_depth(side: ChunkPrediction) -> float:
    valid = valid_pixels(side.depth, side.confidence)
    return float(np.median(side.depth[valid])) if valid.any() else np.nan


def _confident_points(side: ChunkPrediction) -> np.ndarray:
    """(N, 3) in the chunk's frame, evenly thinned."""
    valid = valid_pixels(side.depth, side.confidence)
    valid &= side.confidence >= 0.5 * np.median(side.confidence[valid])
    points = unproject(side.depth, side.intrinsics, side.T_chunk_camera)[valid]
    return points[:: max(1, len(points) // DENSE)]


def _share_near(cells: np.ndarray, others: np.ndarray) -> float:
    """Share of cells (N, 3) that are, or have a neighbour across a face, among the others."""
    known = np.unique(_keys(others))
    near = np.isin(_keys(cells), known)
    for axis in range(3):
        for step in (-1, 1):
            moved = cells.copy()
            moved[:, axis] += step
            near |= np.isin(_keys(moved), known)
    return float(near.mean()) if len(near) else 0.0


def _keys(cells: np.ndarray) -> np.ndarray:
    limited = np.clip(cells, -(1 << 20), (1 << 20) - 1) + (1 << 20)
    return (limited[:, 0] << 42) | (limited[:, 1] << 21) | limited[:, 2]
