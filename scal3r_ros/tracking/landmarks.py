"""Places of corners in the map, from the depth of mapped frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scal3r_ros.tracking.corners import Observations
from scal3r_ros.tracking.interface import Submap

_MAX_SPREAD = 0.05
"""Largest disagreement of a corner's places seen from several frames, relative to the distance."""
_REACH = 1
"""Pixels around a corner in which a depth is looked for."""


def rays_of(pixels: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(N, 2) x / z and y / z of `pixels` (N, 2) of a pinhole camera (3, 3)."""
    return (pixels.astype(np.float64) - K[:2, 2]) / K[[0, 1], [0, 1]]


def places_in_submap(
    submap: Submap, seen: Sequence[Observations | None], K: np.ndarray
) -> dict[int, np.ndarray]:
    """Places (3,) in the map of corners by id; `seen` are the observations of the submap's frames,
    None where they are not known."""
    found: dict[int, list[np.ndarray]] = {}
    for frame, observations in enumerate(seen):
        if observations is None:
            continue
        rays = rays_of(observations.pixels, K)
        depth = depth_along(submap, frame, rays)
        local = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * depth[:, None]
        T = submap.T_map_camera[frame]
        for corner, place in zip(observations.ids.tolist(), local @ T[:3, :3].T + T[:3, 3]):
            if np.isfinite(place[0]):
                found.setdefault(corner, []).append(place)
    centre = submap.T_map_camera[-1, :3, 3]
    agreed = {corner: _agreed(np.stack(places), centre) for corner, places in found.items()}
    return {corner: place for corner, place in agreed.items() if place is not None}


def depth_along(submap: Submap, frame: int, rays: np.ndarray) -> np.ndarray:
    """Depth (N,) of a mapped frame along bearings (N, 2): the nearest known pixel's, NaN without
    one or where neighbours contradict it."""
    K, depth = submap.intrinsics[frame], submap.depth[frame]
    height, width = depth.shape
    pixel = np.floor(rays * K[[0, 1], [0, 1]] + K[:2, 2]).astype(int)
    steps = range(-_REACH, _REACH + 1)
    around = np.stack([pixel + (dx, dy) for dy in steps for dx in steps], axis=1)
    inside = ((around >= 0) & (around < (width, height))).all(axis=2)
    x, y = (np.clip(around[..., i], 0, size - 1) for i, size in enumerate((width, height)))
    values = np.where(inside & (submap.confidence[frame][y, x] > 0), depth[y, x], np.nan)
    values = np.where(values > 0, values, np.nan)
    known = np.isfinite(values).any(axis=1)
    result = np.full(len(rays), np.nan)
    some = values[known]
    middle = np.nanmedian(some, axis=1)
    spread = np.nanmax(some, axis=1) - np.nanmin(some, axis=1)
    result[known] = np.where(spread < _MAX_SPREAD * middle, middle, np.nan)
    return result


def _agreed(places: np.ndarray, centre: np.ndarray) -> np.ndarray | None:
    """Median of a corner's places (n, 3); None if they lie apart."""
    middle = np.median(places, axis=0)
    spread = np.median(np.linalg.norm(places - middle, axis=1))
    near = spread < _MAX_SPREAD * np.linalg.norm(middle - centre)
    return middle if near else None
