"""Corners followed from image to image by Lucas and Kanade's method, checked backwards.

Pixels are those of the camera's image, whose first pixel has its centre at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

_COUNT = 240
"""Corners that are followed at once."""
_REFILL = 0.8
"""Share of them below which new ones are looked for."""
_WIDTH = 640
"""Wider images are halved until they fit."""
_WINDOW = (11, 11)
_LEVELS = 3
_BACK_ERROR = 0.7
"""Pixels by which the way back may miss the start."""
_SPACING = 0.025
"""Distance between corners, as a share of the image's width."""
_QUALITY = 0.005


@dataclass(frozen=True)
class Observations:
    """Where the corners are in one image."""

    stamp_ns: int
    ids: np.ndarray
    """(N,) int64, rising; a corner keeps its id while it is followed."""
    pixels: np.ndarray
    """(N, 2) float32."""


class Corners:
    """Follows corners through a stream of images of one size."""

    def __init__(self) -> None:
        self._next_id = 0
        self._gray = np.zeros((0, 0), np.uint8)
        self._ids, self._pixels = np.zeros(0, np.int64), np.zeros((0, 2), np.float32)

    @property
    def fresh(self) -> bool:
        """Whether there was no image yet."""
        return not self._gray.size

    def fits(self, rgb: np.ndarray) -> bool:
        """Whether `rgb` has the size of the images before."""
        return self.fresh or self._gray.shape == _shrunk_size(rgb.shape[:2])

    def follow(self, rgb: np.ndarray, stamp_ns: int) -> Observations:
        """The corners in the next image `rgb` (H, W, 3) uint8."""
        gray = _shrunk(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        if len(self._ids):
            self._move(gray)
        if len(self._ids) < _REFILL * _COUNT:
            self._refill(gray)
        self._gray = gray
        scale = np.float32(rgb.shape[1] / gray.shape[1])
        return Observations(stamp_ns, self._ids.copy(), (self._pixels + np.float32(0.5)) * scale)

    def state(self) -> dict[str, np.ndarray]:
        return {
            "gray": self._gray.copy(),
            "ids": self._ids.copy(),
            "pixels": self._pixels.copy(),
            "next_id": np.array(self._next_id),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._gray, self._ids = state["gray"].copy(), state["ids"].copy()
        self._pixels, self._next_id = state["pixels"].copy(), int(state["next_id"])

    def _move(self, gray: np.ndarray) -> None:
        there, found = _flow(self._gray, gray, self._pixels)
        back, returned = _flow(gray, self._gray, there)
        good = found & returned
        good &= np.linalg.norm(back - self._pixels, axis=1) < _BACK_ERROR
        height, width = gray.shape
        good &= (there >= 0).all(axis=1) & (there < (width, height)).all(axis=1)
        self._ids, self._pixels = self._ids[good], there[good]

    def _refill(self, gray: np.ndarray) -> None:
        spacing = max(4, round(_SPACING * gray.shape[1]))
        free = np.full(gray.shape, 255, np.uint8)
        for x, y in self._pixels.round().astype(int).tolist():
            cv2.circle(free, (x, y), spacing, 0, -1)
        wanted = _COUNT - len(self._ids)
        found = cv2.goodFeaturesToTrack(gray, wanted, _QUALITY, spacing, mask=free)
        if found is None:
            return
        fresh = found.reshape(-1, 2).astype(np.float32)
        ids = np.arange(self._next_id, self._next_id + len(fresh))
        self._next_id += len(fresh)
        self._ids = np.concatenate([self._ids, ids])
        self._pixels = np.concatenate([self._pixels, fresh])


def _flow(
    before: np.ndarray, after: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where `pixels` (N, 2) went, and which were found (N,)."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, pixels, pixels.copy(), winSize=_WINDOW, maxLevel=_LEVELS
    )
    return there, found[:, 0] > 0


def _shrunk_size(size: tuple[int, int]) -> tuple[int, int]:
    height, width = size
    while width > _WIDTH:
        height, width = height // 2, width // 2
    return height, width


def _shrunk(gray: np.ndarray) -> np.ndarray:
    height, width = _shrunk_size(gray.shape)
    if width == gray.shape[1]:
        return gray
    return cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
