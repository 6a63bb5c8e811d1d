"""Which pixels of a depth map are kept: precise ones, on surfaces, that other frames confirm."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from scal3r_ros.reconstruct.sfm.flow_depth import DepthEstimate

_MAX_ERROR = 0.06
"""Largest relative standard deviation; the sky, where depth is unknowable, exceeds any."""
_MAX_STEP = 1.15
"""Largest ratio of depths in a small window: beyond it, pixels may lie between two surfaces."""
_AGREEMENT = 0.05
"""Largest relative difference between two frames' depths of one point."""
_SPECKLE = 40
"""Smaller islands of depth are mistakes, px."""
_SPECKLE_STEP = 0.04
"""Difference of the logarithm of depth that separates islands."""


def on_surfaces(estimate: DepthEstimate) -> np.ndarray:
    """(H, W) inverse depth with 0 where it is imprecise, at an edge of depth, or an island."""
    inverse = np.where(estimate.relative_error <= _MAX_ERROR, estimate.inverse_depth, 0)
    window = np.ones((3, 3), np.uint8)
    nearest = cv2.dilate(inverse, window)
    farthest = cv2.erode(np.where(inverse > 0, inverse, nearest), window)
    inverse = np.where(nearest <= _MAX_STEP * farthest, inverse, 0)
    return _without_islands(inverse.astype(np.float32))


def confirmed(
    inverse: Sequence[np.ndarray],
    poses: np.ndarray,
    intrinsics: np.ndarray,
    row: int,
    others: Sequence[int],
) -> np.ndarray:
    """(H, W) bool: pixels of frame `row` whose point lies on the surface that enough `others`
    found too.

    `inverse` are maps (H, W) of inverse depth, 0 where unknown; poses (S, 4, 4) are T_model_camera.
    Two frames must agree where there are three or more to ask, else one.
    """
    height, width = inverse[row].shape
    y, x = np.nonzero(inverse[row])
    depth = 1.0 / inverse[row][y, x]
    rays = np.linalg.inv(intrinsics) @ np.stack([x, y, np.ones_like(x)]).astype(float)
    points = poses[row, :3, :3] @ (rays * depth) + poses[row, :3, 3:]
    count = np.zeros(len(x), int)
    for other in others:
        T_other_model = np.linalg.inv(poses[other])
        seen = T_other_model[:3, :3] @ points + T_other_model[:3, 3:]
        ahead = np.where(seen[2] > 1e-9, seen[2], np.inf)
        pixels = np.rint((intrinsics @ seen)[:2] / ahead).astype(int)
        inside = (pixels >= 0).all(axis=0) & (pixels[0] < width) & (pixels[1] < height)
        inside &= np.isfinite(ahead)
        there = inverse[other][pixels[1][inside], pixels[0][inside]]
        count[inside] += np.abs(there * ahead[inside] - 1) < _AGREEMENT
    kept = np.zeros((height, width), bool)
    kept[y, x] = count >= (2 if len(others) >= 3 else 1)
    return kept


def _without_islands(inverse: np.ndarray) -> np.ndarray:
    known = inverse > 0
    if not known.any():
        return inverse
    logarithm = np.log(np.where(known, inverse, 1.0))
    steps = np.round((logarithm - logarithm[known].min()) / _SPECKLE_STEP)
    levels = np.where(known, np.clip(steps + 1, 1, 30000), 0).astype(np.int16)
    cv2.filterSpeckles(levels, 0, _SPECKLE, 1)
    return np.where(levels > 0, inverse, 0)
