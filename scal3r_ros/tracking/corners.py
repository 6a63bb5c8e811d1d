"""Corners followed from image to image by Lucas and Kanade's method, checked backwards.

Pixels are those of the camera's image, whose first pixel has its centre at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from scal3r_ros.tracking.known_corners import Described, describe

_COUNT = 240
"""Corners that are followed at once."""
_REFILL = 0.8
"""Share of them below which new ones are looked for."""
_WIDTH = 640
"""Wider images are halved until they fit."""
_WINDOW = (13, 13)
_LEVELS = 3
_ALIGN_LEVELS = 1
_ALIGNED = 1.0
"""Pixels by which aligning with the reference image may correct a corner."""
_REFERENCE_MOTION = 0.1
"""Median motion of the corners since the reference image, as a share of the width, that makes
another one."""
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

    def renamed(self, rows: np.ndarray, ids: np.ndarray) -> Observations:
        """With the corners at `rows` under other `ids`."""
        names = self.ids.copy()
        names[rows] = ids
        order = np.argsort(names)
        return Observations(self.stamp_ns, names[order], self.pixels[order])


class Corners:
    """Follows corners through a stream of images of one size."""

    def __init__(self) -> None:
        self._next_id = 0
        self._gray = np.zeros((0, 0), np.uint8)
        self._ids, self._pixels = np.zeros(0, np.int64), np.zeros((0, 2), np.float32)
        self._reference = self._gray
        """The image that corners are aligned with: from image to image alone they would stray."""
        self._origin = self._pixels
        """(N, 2) where they are in it."""

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
        renewed = len(self._ids) < _REFILL * _COUNT
        if renewed:
            self._refill(gray)
        if renewed or self._strayed(gray):
            self._reference, self._origin = gray, self._pixels.copy()
        self._gray = gray
        scale = np.float32(rgb.shape[1] / gray.shape[1])
        return Observations(stamp_ns, self._ids.copy(), (self._pixels + np.float32(0.5)) * scale)

    def described(self) -> Described:
        """What the corners of the newest image look like."""
        return describe(self._gray, self._pixels)

    def rename(self, rows: np.ndarray, ids: np.ndarray) -> None:
        """The corners at `rows` are those that were known as `ids` before they were lost."""
        self._ids[rows] = ids
        order = np.argsort(self._ids)
        self._ids, self._pixels = self._ids[order], self._pixels[order]
        self._origin = self._origin[order]

    def state(self) -> dict[str, np.ndarray]:
        return {
            "gray": self._gray.copy(),
            "ids": self._ids.copy(),
            "pixels": self._pixels.copy(),
            "next_id": np.array(self._next_id),
            "reference": self._reference.copy(),
            "origin": self._origin.copy(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._gray, self._ids = state["gray"].copy(), state["ids"].copy()
        self._pixels, self._next_id = state["pixels"].copy(), int(state["next_id"])
        self._reference, self._origin = state["reference"].copy(), state["origin"].copy()

    def _move(self, gray: np.ndarray) -> None:
        there, found = _flow(self._gray, gray, self._pixels)
        back, returned = _flow(gray, self._gray, there)
        good = found & returned
        good &= np.linalg.norm(back - self._pixels, axis=1) < _BACK_ERROR
        height, width = gray.shape
        good &= (there >= 0).all(axis=1) & (there < (width, height)).all(axis=1)
        self._ids, self._pixels, self._origin = self._ids[good], there[good], self._origin[good]
        self._align(gray)

    def _align(self, gray: np.ndarray) -> None:
        """Where corners are by their looks in the reference image."""
        if not len(self._ids):
            return
        aligned, found = _flow(self._reference, gray, self._origin, self._pixels, _ALIGN_LEVELS)
        near = found & (np.linalg.norm(aligned - self._pixels, axis=1) < _ALIGNED)
        self._pixels[near] = aligned[near]

    def _strayed(self, gray: np.ndarray) -> bool:
        motion = np.linalg.norm(self._pixels - self._origin, axis=1)
        return bool(len(motion)) and np.median(motion) > _REFERENCE_MOTION * gray.shape[1]

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
    before: np.ndarray,
    after: np.ndarray,
    pixels: np.ndarray,
    guess: np.ndarray | None = None,
    levels: int = _LEVELS,
) -> tuple[np.ndarray, np.ndarray]:
    """Where `pixels` (N, 2) went, near `guess` (N, 2), and which were found (N,)."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before,
        after,
        pixels,
        (pixels if guess is None else guess).copy(),
        winSize=_WINDOW,
        maxLevel=levels,
        flags=0 if guess is None else cv2.OPTFLOW_USE_INITIAL_FLOW,
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
