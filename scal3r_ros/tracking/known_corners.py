"""Corners that have been placed, and what they look like: to find the camera again after a loss.

Descriptors are ORB's, upright and of one size: what is found again is the view of a moment ago, not
another view of the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from scal3r_ros.mapping.sim3 import Sim3

_COUNT = 2000
"""Corners remembered, those that were seen last."""
_WIDTH = 32
"""Bytes of a descriptor."""
_PATCH = 31.0
_RATIO = 0.85
"""The second best match must be that much worse."""
_MAX_BITS = 64


@dataclass(frozen=True)
class Described:
    """Corners of one image that are far enough from its border to be described."""

    rows: np.ndarray
    """(N,) among the corners of the image."""
    descriptors: np.ndarray
    """(N, 32) uint8."""


def describe(gray: np.ndarray, pixels: np.ndarray) -> Described:
    """Descriptors of corners at `pixels` (M, 2) of `gray` (H, W)."""
    points = [
        cv2.KeyPoint(float(x), float(y), _PATCH, 0.0, 1.0, 0, row)
        for row, (x, y) in enumerate(pixels.tolist())
    ]
    if not points:
        return Described(np.zeros(0, np.int64), np.zeros((0, _WIDTH), np.uint8))
    kept, descriptors = cv2.ORB.create(nlevels=1, edgeThreshold=16).compute(gray, points)
    if descriptors is None:
        descriptors = np.zeros((0, _WIDTH), np.uint8)
    return Described(np.array([point.class_id for point in kept], np.int64), descriptors)


class KnownCorners:
    """Places and looks of corners by id."""

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.int64)
        self._points = np.zeros((0, 3))
        self._descriptors = np.zeros((0, _WIDTH), np.uint8)

    def remember(self, ids: np.ndarray, points: np.ndarray, descriptors: np.ndarray) -> None:
        """Corners `ids` (N,) at `points` (N, 3) in the map, as they look now."""
        old = ~np.isin(self._ids, ids)
        self._ids = np.concatenate([self._ids[old], ids])[-_COUNT:]
        self._points = np.concatenate([self._points[old], points])[-_COUNT:]
        self._descriptors = np.concatenate([self._descriptors[old], descriptors])[-_COUNT:]

    def places(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `ids` of remembered corners, and their points (N, 3) in the map."""
        _, mine, theirs = np.intersect1d(ids, self._ids, assume_unique=True, return_indices=True)
        return mine, self._points[theirs]

    def recognise(self, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions in `descriptors` (N, 32) of what looks like a remembered corner; the id (M,)
        and point (M, 3) of that one. Every corner is matched once; many of them wrongly."""
        none = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3))
        if len(descriptors) < 1 or len(self._ids) < 2:
            return none
        pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(descriptors, self._descriptors, k=2)
        best = [a for a, b in pairs if a.distance < min(_RATIO * b.distance, _MAX_BITS)]
        best.sort(key=lambda match: match.distance)
        rows = np.array([match.queryIdx for match in best], np.int64)
        known = np.array([match.trainIdx for match in best], np.int64)
        known, once = np.unique(known, return_index=True)
        return rows[once], self._ids[known], self._points[known]

    def move(self, S: Sim3) -> None:
        """Tell everything in another frame."""
        self._points = S.apply(self._points)

    def state(self) -> dict[str, np.ndarray]:
        return {
            "ids": self._ids.copy(),
            "points": self._points.copy(),
            "descriptors": self._descriptors.copy(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._ids, self._points = state["ids"].copy(), state["points"].copy()
        self._descriptors = state["descriptors"].copy()
