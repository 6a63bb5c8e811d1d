"""A place that is seen again does not enter the map twice: where an older submap already has a
point, the newer one adds its weight there instead of keeping a point of its own."""

from __future__ import annotations

import numpy as np

from scal3r_ros.mapping.submap import Submap
from scal3r_ros.mapping.voxels import KEY_RANGE, Voxels, cell_keys


def told_apart(older: Submap, newer: Submap) -> tuple[Submap, Submap]:
    """Both submaps after all that `newer` repeats went over to `older`; the total weight stays.

    A point is a repetition if it falls into an occupied voxel of the older submap, at the places
    that both have in the map now.
    """
    S_older_newer = older.S_map_anchor.inverse() @ newer.S_map_anchor
    points = S_older_newer.apply(newer.voxels.points)
    known = _occupied(older, points)
    if not known.any():
        return older, newer
    repeated = newer.voxels.of(known)
    colors = repeated.colors.astype(np.float32)
    over = Voxels.bin(points[known].T, colors.T, repeated.weights, older.voxel_size)
    return older.holding(older.voxels.merge(over)), newer.holding(newer.voxels.of(~known))


def meet(older: Submap, newer: Submap) -> bool:
    """Whether the boxes around the points of two submaps may overlap; cheap."""
    apart = older.S_map_anchor.apply(older.centre) - newer.S_map_anchor.apply(newer.centre)
    radii = older.radius * older.S_map_anchor.scale + newer.radius * newer.S_map_anchor.scale
    return bool(np.linalg.norm(apart) <= radii)


def reach(submap: Submap) -> float:
    """Typical distance of a submap's points from its anchor, map units."""
    distances = np.linalg.norm(submap.voxels.points, axis=1)
    return float(np.median(distances) * submap.S_map_anchor.scale)


def _occupied(submap: Submap, points: np.ndarray) -> np.ndarray:
    """Whether each of `points` (N, 3), in coordinates of the anchor, is in an occupied voxel."""
    cells = np.floor(points.T * np.float32(1.0 / submap.voxel_size))
    inside = (np.abs(cells) < KEY_RANGE).all(axis=0)
    keys = cell_keys(np.where(inside, cells, 0.0))
    taken = submap.voxels.keys
    place = np.minimum(np.searchsorted(taken, keys), len(taken) - 1)
    return inside & (taken[place] == keys)
