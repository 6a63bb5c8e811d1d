"""SIFT and XFeat in one image: precise points where there is texture, and points that are found
again where there is little."""

from __future__ import annotations

import numpy as np

from scal3r_ros.reconstruct.sfm.features import Features
from scal3r_ros.reconstruct.sfm.learned import LearnedFeatures
from scal3r_ros.reconstruct.sfm.sift import Sift

_PLENTY = 150
"""Matches of SIFT beside which those of XFeat, placed five times less precisely, only do harm."""


class BothFeatures:
    """Half of the features of each kind; SIFT's come first. A descriptor has room for both kinds
    and zeros for the other one."""

    name = "sift+xfeat"

    def __init__(self) -> None:
        self._sift, self._learned = Sift(), LearnedFeatures()
        self.width = self._learned.width

    def extract(self, rgb: np.ndarray, limit: int) -> Features:
        """Half of the `limit` strongest features of an image (H, W, 3) uint8 from each kind."""
        precise = self._sift.extract(rgb, limit // 2)
        stable = self._learned.extract(rgb, limit // 2)
        pixels = np.concatenate([precise.pixels, stable.pixels])
        left = np.pad(precise.descriptors, ((0, 0), (0, self._learned.width)))
        right = np.pad(stable.descriptors, ((0, 0), (self._sift.width, 0)))
        return Features(pixels, np.concatenate([left, right]), len(precise.pixels))

    def match(self, first: Features, second: Features) -> np.ndarray:
        """SIFT where there is plenty of it, else each kind by its own rules."""
        (a, b), (c, d) = self._split(first), self._split(second)
        precise = self._sift.match(a, c)
        if len(precise) >= _PLENTY:
            return precise
        shift = np.array([len(a.pixels), len(c.pixels)], np.uint32)
        return np.concatenate([precise, self._learned.match(b, d) + shift])

    def for_places(self, descriptors: np.ndarray) -> np.ndarray:
        """XFeat's part."""
        learned = descriptors[:, self._sift.width :]
        return self._learned.for_places(learned[learned.any(axis=1)])

    def _split(self, features: Features) -> tuple[Features, Features]:
        width, count = self._sift.width, features.precise
        return (
            Features(features.pixels[:count], features.descriptors[:count, :width]),
            Features(features.pixels[count:], features.descriptors[count:, width:]),
        )
