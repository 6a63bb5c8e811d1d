"""The surface that the camera of the demo recording sees, to compare a map with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scal3r_ros.train.demo_bag import demo_tour

_SIZE = (120, 160)
_STRIDE = 6
_EDGE = 0.015
"""Distance between neighbouring points of the surface, metres."""


@dataclass(frozen=True)
class MapAccuracy:
    """How well a map lies on the true surface; shares between 0 and 1."""

    points: int
    within_2_cm: float
    within_5_cm: float
    median_cm: float
    completeness: float
    """Share of what the camera saw that has a point of the map within 5 cm."""


def true_surface() -> np.ndarray:
    """(N, 3) points in the recording's world frame, metres: where rays of every sixth frame end,
    one per cube of 1.5 cm."""
    import torch

    from scal3r_ros.train.worlds.rendering import focal_length, nearest_hit, ray_directions

    made = demo_tour(360)
    focal = focal_length(torch.tensor([made.fov]), _SIZE[1])
    ends = []
    for T_world_camera in made.T_world_camera[::_STRIDE]:
        rays = ray_directions(T_world_camera[None, None, :3, :3], focal, _SIZE, 1)
        origin = T_world_camera[None, None, :3, 3]
        depth = nearest_hit(made.scene, origin, rays).depth
        ends.append((origin[:, :, None] + rays * depth[..., None]).reshape(-1, 3).numpy())
    return thinned(np.concatenate(ends), _EDGE)


def compare(points: np.ndarray, surface: np.ndarray) -> MapAccuracy:
    """Distances of map points (M, 3) and points of a surface (N, 3), both in metres and in one
    frame."""
    from scipy.spatial import cKDTree

    away = cKDTree(surface).query(points, distance_upper_bound=0.5)[0]
    missed = cKDTree(points).query(surface, distance_upper_bound=0.5)[0]
    return MapAccuracy(
        len(points),
        float((away < 0.02).mean()),
        float((away < 0.05).mean()),
        100 * float(np.median(away)),
        float((missed < 0.05).mean()),
    )


def thinned(points: np.ndarray, edge: float) -> np.ndarray:
    """One of the points (N, 3) in every cube."""
    cubes = np.floor(points / edge).astype(np.int64)
    _, first = np.unique(cubes, axis=0, return_index=True)
    return points[np.sort(first)]
