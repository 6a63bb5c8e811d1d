"""Features of several frames that show one point, and where a prediction says that it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scal3r_ros.reconstruct.sfm.adjustment import Observations, Scene
from scal3r_ros.reconstruct.sfm.features import Features

Geometries = Mapping[tuple[int, int], Any]
"""Verified `pycolmap.TwoViewGeometry` of frames by their rows (i, j), i < j."""


def linked(features: Sequence[Features], geometries: Geometries) -> tuple[np.ndarray, np.ndarray]:
    """Frame (E,) and point (E,) of every feature that is matched, -1 for others: features count
    through all frames. Points that a frame seems to show twice are mistakes and left out."""
    starts = np.concatenate([[0], np.cumsum([len(item.pixels) for item in features])])
    frame = np.repeat(np.arange(len(features)), np.diff(starts))
    edges = [
        geometry.inlier_matches.astype(np.int64) + starts[[first, second]]
        for (first, second), geometry in sorted(geometries.items(), key=lambda item: item[0])
    ]
    ends = np.concatenate([*edges, np.zeros((0, 2), np.int64)])
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(starts[-1],) * 2)
    point = connected_components(graph, directed=False)[1].astype(np.int64)
    size = np.bincount(point)
    _, place, often = np.unique(
        np.stack([point, frame]), axis=1, return_inverse=True, return_counts=True
    )
    twice = np.zeros(len(size), bool)
    twice[point[often[place.ravel()] > 1]] = True
    return frame, np.where((size[point] > 1) & ~twice[point], point, -1)


def placed(
    frame: np.ndarray, point: np.ndarray, rays: np.ndarray, depth: np.ndarray, T: np.ndarray
) -> tuple[Scene, Observations]:
    """Points where the predicted depth (E,) of their observations says, the middle of what several
    say, for cameras T_chunk_camera (S, 4, 4); points of no known depth are left out."""
    known = (point >= 0) & np.isfinite(depth)
    point = np.where(np.isin(point, point[known]), point, -1)
    used = point >= 0
    names, number = np.unique(point[used], return_inverse=True)
    frame, rays, depth = frame[used], rays[used], depth[used]
    local = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * depth[:, None]
    world = np.einsum("eij,ej->ei", T[frame, :3, :3], local) + T[frame, :3, 3]
    points = np.array([
        np.nanmedian(world[rows], axis=0) for rows in _groups(number, len(names))
    ]).reshape(-1, 3)  # fmt: skip
    seen = Observations(frame, number, rays, depth, np.ones(len(frame)))
    return Scene(np.linalg.inv(T), points), seen


def _groups(number: np.ndarray, count: int) -> list[np.ndarray]:
    """Rows of every number from 0 to `count`."""
    order = np.argsort(number, kind="stable")
    return np.split(order, np.cumsum(np.bincount(number, minlength=count))[:-1])[:count]
