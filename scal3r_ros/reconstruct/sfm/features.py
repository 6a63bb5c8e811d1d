"""Image features for structure from motion: extraction, matching, two-view verification.

Everything here gives the same answer in every run: descriptors are whole numbers, so their
products are exact in float32 whatever the order of summation, and sampling is seeded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

_UNIT = 512.0
"""Length to which OpenCV scales a SIFT descriptor before rounding it."""
_RATIO = 0.8
_MAX_ANGLE = 0.7
_TWO_VIEW_ERROR = 2.0
MIN_MATCHES = 20
"""Fewer verified matches do not count as seeing the same thing."""


@dataclass(frozen=True)
class Features:
    """Features of one image."""

    pixels: np.ndarray
    """(N, 2) float32, column and row; the first pixel's centre is (0.5, 0.5)."""
    descriptors: np.ndarray
    """(N, 128) float32 whole numbers, each row about 512 long."""


def extract(rgb: np.ndarray, limit: int) -> Features:
    """The `limit` strongest SIFT features of an image (H, W, 3) uint8, one per place and scale."""
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT_create(nfeatures=limit)  # type: ignore[attr-defined]  # missing in the stub
    keypoints, descriptors = sift.detectAndCompute(gray, None)
    if not keypoints:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    pixels = np.array([point.pt for point in keypoints], np.float32) + 0.5
    strength = np.array([point.response for point in keypoints])
    order = np.lexsort((pixels[:, 0], pixels[:, 1], -strength))[:limit]
    _, first = np.unique(np.round(pixels[order] * 4), axis=0, return_index=True)
    order = order[np.sort(first)]
    return Features(pixels[order], descriptors[order])


def match(first: Features, second: Features) -> np.ndarray:
    """Mutual nearest neighbours that are clearly better than the second best; (M, 2) uint32."""
    if min(len(first.pixels), len(second.pixels)) < 2:
        return np.zeros((0, 2), np.uint32)
    products = first.descriptors @ second.descriptors.T
    rows = np.arange(len(first.pixels))
    nearest, back = products.argmax(axis=1), products.argmax(axis=0)
    best = products[rows, nearest].copy()
    products[rows, nearest] = -1
    runner_up = products[rows, products.argmax(axis=1)]
    angle = np.arccos(np.minimum(best / _UNIT**2, 1.0))
    other = np.arccos(np.minimum(runner_up / _UNIT**2, 1.0))
    good = (back[nearest] == rows) & (angle < _RATIO * other) & (angle < _MAX_ANGLE)
    return np.stack([rows[good], nearest[good]], axis=1).astype(np.uint32)


def verify(first: Features, second: Features, matches: np.ndarray, camera: Any, seed: int) -> Any:
    """Epipolar geometry of two images by RANSAC: a `pycolmap.TwoViewGeometry` with its inliers,
    None if too few matches agree with one."""
    import pycolmap

    if len(matches) < MIN_MATCHES:
        return None
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    options.ransac.max_error = _TWO_VIEW_ERROR
    geometry = pycolmap.estimate_calibrated_two_view_geometry(
        camera, first.pixels, camera, second.pixels, matches, options
    )
    return geometry if len(geometry.inlier_matches) >= MIN_MATCHES else None
