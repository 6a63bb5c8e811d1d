"""How well the depth maps of neighbouring frames agree: a figure for a map without ground truth.

The pixels that enter the map are drawn into the next frame of their chunk and compared with its
depth there. Differences are counted in a histogram, so that a run of any length takes the same
memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from scal3r_ros.config import MapConfig
from scal3r_ros.mapping.camera import project, unproject
from scal3r_ros.mapping.point_map import confident_pixels
from scal3r_ros.records import ChunkPrediction

_EDGES = np.geomspace(1e-4, 0.3, 120)
"""Relative differences of depth that bound the bins; larger ones are different surfaces."""
_STEP = 4
"""Every so many pixels in both directions are compared."""


class MapQuality:
    """Grows with every frame that is fused."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES) + 1, np.int64)
        self._pixels = np.zeros(2, np.int64)  # with a depth that enters the map, and all

    def observe(
        self, prediction: ChunkPrediction, owned_ids: Collection[int], config: MapConfig
    ) -> None:
        """Take the frames of a chunk that it owns into account."""
        owned = set(owned_ids)
        for row, frame_id in enumerate(prediction.frame_ids):
            if frame_id in owned:
                kept = confident_pixels(prediction, row, config)
                self._pixels += [len(kept), prediction.depth[row].size]
                other = row + 1 if row + 1 < len(prediction.frame_ids) else row - 1
                if other >= 0:
                    apart = _differences(prediction, row, other, kept)
                    places = np.searchsorted(_EDGES, apart)
                    self._counts += np.bincount(places, minlength=len(self._counts))

    def figures(self) -> dict[str, Any]:
        """`disagreement`: median relative difference of two frames' depths of one point, None if
        nothing was compared. `coverage`: share of pixels whose depth enters the map."""
        compared = int(self._counts[:-1].sum())
        middle = int(np.searchsorted(np.cumsum(self._counts[:-1]), compared / 2))
        return {
            "disagreement": float(_EDGES[middle]) if compared else None,
            "coverage": float(self._pixels[0] / self._pixels[1]) if self._pixels[1] else None,
        }

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays, to save and restore."""
        return {"counts": self._counts, "pixels": self._pixels}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> MapQuality:
        """What `state` gave; nothing observed yet if a map of an older version has none."""
        quality = cls()
        if arrays:
            quality._counts = np.array(arrays["counts"], np.int64)
            quality._pixels = np.array(arrays["pixels"], np.int64)
        return quality


def _differences(prediction: ChunkPrediction, row: int, other: int, kept: np.ndarray) -> np.ndarray:
    """Relative differences (N,) of the depths that two frames give to the points of one of
    them."""
    height, width = prediction.depth.shape[1:]
    y, x = np.divmod(kept, width)
    kept = kept[(y % _STEP == 0) & (x % _STEP == 0)]
    pose, K = prediction.T_chunk_camera, prediction.intrinsics
    one = slice(row, row + 1)
    points = unproject(prediction.depth[one], K[one], pose[one]).reshape(-1, 3)[kept]
    pixels, depth = project(points.astype(np.float64), K[other], pose[other])
    column, line = np.floor(np.where(depth[:, None] > 0, pixels, -1.0)).T
    inside = (column >= 0) & (line >= 0) & (column < width) & (line < height)
    there = prediction.depth[other][line[inside].astype(int), column[inside].astype(int)]
    known = np.isfinite(there) & (there > 0)
    return np.abs(there[known] / depth[inside][known] - 1)
