"""Which pixels of a depth map are kept: precise ones, on surfaces, that other frames confirm."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from scal3r_ros.reconstruct.sfm.photometric import DepthEstimate

_MAX_ERROR = 0.06
"""Largest relative standard deviation; the sky, where depth is unknowable, exceeds any."""
_MAX_STEP = 1.15
"""Largest ratio of depths in a small window: beyond it, pixels may lie between two surfaces."""
_AGREEMENT = 0.03
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
    """(H, W) inverse depth of frame `row` where its point lies on the surface that enough `others`
    found too, the mean of what they say; else 0.

    `inverse` are maps (H, W) of inverse depth, 0 where unknown; poses (S, 4, 4) are T_model_camera.
    Two frames must agree where there are three or more to ask, else one.
    """
    own = inverse[row]
    known = own > 0
    height, width = own.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    count, total = np.zeros(own.shape, int), np.ones_like(own)
    for other in others:
        T_other_row = np.linalg.inv(poses[other]) @ poses[row]
        turn = (intrinsics @ T_other_row[:3, :3] @ np.linalg.inv(intrinsics)).astype(np.float32)
        shift = (intrinsics @ T_other_row[:3, 3]).astype(np.float32)
        right, down, ahead = (
            turn[i, 0] * x + turn[i, 1] * y + turn[i, 2] + shift[i] * own for i in range(3)
        )
        # All by inverse depth: a point at 1 / own lies at ahead / own in the other frame.
        visible = known & (ahead > 1e-6)
        scale = np.where(visible, ahead, 1.0)
        there, whole = (
            cv2.remap(plane, right / scale, down / scale, cv2.INTER_LINEAR)
            for plane in (inverse[other], (inverse[other] > 0).astype(np.float32))
        )
        ratio = there * scale / np.where(known, own, 1.0)
        agrees = visible & (whole > 0.999) & (np.abs(ratio - 1) < _AGREEMENT)
        count += agrees
        total += np.where(agrees, ratio, 0.0)
    enough = count >= (2 if len(others) >= 3 else 1)
    return np.where(enough, own * total / (1 + count), 0.0).astype(np.float32)


def _without_islands(inverse: np.ndarray) -> np.ndarray:
    known = inverse > 0
    if not known.any():
        return inverse
    logarithm = np.log(np.where(known, inverse, 1.0))
    steps = np.round((logarithm - logarithm[known].min()) / _SPECKLE_STEP)
    levels = np.where(known, np.clip(steps + 1, 1, 30000), 0).astype(np.int16)
    cv2.filterSpeckles(levels, 0, _SPECKLE, 1)
    return np.where(levels > 0, inverse, 0)
