"""Depth to a tenth of a pixel: the images themselves decide, for all neighbours at once.

Lucas and Kanade (IJCAI 1981) along the epipolar lines: each neighbouring image is drawn as the
frame would see it with the depth so far, and the change of inverse depth that makes windows of all
of them most like the frame's, up to their brightness, is a linear problem of one unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from scal3r_ros.reconstruct.sfm.sweep import View

_WINDOW = 7
_INDEPENDENT = 12.0
"""Pixels of a window whose errors are independent of each other."""
_NOISE = 3.0
"""Standard deviation of a grey level, the images' compression included."""
_NOISE_SLOPE = 0.35
"""Standard deviation of the derivative of a smoothed image of such noise, grey levels per px."""
_OCCLUDED = 12.0
"""Grey levels of difference within a window at which a neighbour counts half."""
_STEP = 1.0
"""Largest change of a round, px in the neighbour that moves most."""
_ALIKE = 0.5
"""Share of a window's contrast that may be left unexplained in a neighbour that supports a
depth."""
_MIN_VIEWS = 2


@dataclass(frozen=True)
class DepthEstimate:
    """Inverse depth of one frame."""

    inverse_depth: np.ndarray
    """(H, W) float32, model units; 0 where unknown."""
    relative_error: np.ndarray
    """(H, W) float32 standard deviation relative to the depth; infinite where unknown."""


def refined(
    gray: np.ndarray,
    views: Sequence[View],
    intrinsics: np.ndarray,
    start: np.ndarray,
    rounds: int,
) -> DepthEstimate:
    """Refine the inverse depth `start` (H, W) of an image (H, W) uint8, which is right within about
    two pixels; `intrinsics` with the first pixel centre at (0, 0)."""
    image = _smooth(gray)
    contrast = _variance(image)
    seen = [_Neighbour.of(view, intrinsics, gray.shape) for view in views]
    inverse_depth = start.astype(np.float32)
    for number in range(rounds):
        measures = [neighbour.compare(image, inverse_depth) for neighbour in seen]
        curvature = sum(m.weight * m.curvature for m in measures)
        change = sum(m.weight * m.product for m in measures) / (curvature + 1e-12)
        fastest = np.max([m.speed for m in measures], axis=0)
        limit = _STEP / np.maximum(fastest, 1e-9)
        inverse_depth = np.maximum(inverse_depth + np.clip(change, -limit, limit), 0)
        if number + 1 < rounds:
            inverse_depth = cv2.medianBlur(inverse_depth.astype(np.float32), 3)
    left = [m.difference - 2 * change * m.product + change**2 * m.curvature for m in measures]
    supports = [
        (m.weight > 0) & (e < _ALIKE * contrast + _NOISE**2) for m, e in zip(measures, left)
    ]
    strength = sum(s * m.texture for s, m in zip(supports, measures))
    count = np.sum(supports, axis=0)
    unexplained = sum(s * e for s, e in zip(supports, left)) / np.maximum(count, 1)
    error = np.sqrt(np.maximum(unexplained, _NOISE**2) / np.maximum(_INDEPENDENT * strength, 1e-12))
    known = (count >= _MIN_VIEWS) & (inverse_depth > 0) & (np.abs(change) < limit)
    relative = np.where(known, error / np.maximum(inverse_depth, 1e-9), np.inf)
    return DepthEstimate(
        np.where(known, inverse_depth, 0).astype(np.float32), relative.astype(np.float32)
    )


@dataclass(frozen=True)
class _Measure:
    """What one neighbour says; maps (H, W) of means over windows."""

    product: np.ndarray
    curvature: np.ndarray
    difference: np.ndarray
    weight: np.ndarray
    speed: np.ndarray
    """Pixels per unit of inverse depth."""

    @property
    def texture(self) -> np.ndarray:
        """The curvature minus what image noise alone would cause."""
        return np.maximum(self.curvature - (_NOISE_SLOPE * self.speed) ** 2, 0)


@dataclass(frozen=True)
class _Neighbour:
    """A neighbouring image, its derivatives, and the rays of the frame in it."""

    image: np.ndarray
    across: np.ndarray
    down: np.ndarray
    far: np.ndarray
    near: np.ndarray

    @staticmethod
    def of(view: View, intrinsics: np.ndarray, shape: tuple[int, ...]) -> _Neighbour:
        height, width = shape
        image = _smooth(view.gray)
        across = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
        down = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
        columns, rows = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
        pixels = np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1)
        turn = intrinsics @ view.T_view_frame[:3, :3] @ np.linalg.inv(intrinsics)
        far = (turn @ pixels).reshape(3, height, width).astype(np.float32)
        return _Neighbour(
            image, across, down, far, (intrinsics @ view.T_view_frame[:3, 3]).astype(np.float32)
        )

    def compare(self, image: np.ndarray, inverse_depth: np.ndarray) -> _Measure:
        height, width = image.shape
        scale = self.far[2] + inverse_depth * self.near[2]
        visible = scale > 1e-6
        scale = 1.0 / np.where(visible, scale, 1.0)
        x = (self.far[0] + inverse_depth * self.near[0]) * scale
        y = (self.far[1] + inverse_depth * self.near[1]) * scale
        visible &= (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
        speed_x = (self.near[0] - x * self.near[2]) * scale
        speed_y = (self.near[1] - y * self.near[2]) * scale
        drawn, across, down = (
            cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for plane in (self.image, self.across, self.down)
        )
        gradient = across * speed_x + down * speed_y
        residual = image - drawn
        mean_gradient, mean_residual = _mean(gradient), _mean(residual)
        difference = _mean(residual * residual) - mean_residual**2
        curvature = _mean(gradient * gradient) - mean_gradient**2
        product = _mean(gradient * residual) - mean_gradient * mean_residual
        weight = visible / (1.0 + np.maximum(difference, 0) / _OCCLUDED**2)
        return _Measure(
            product,
            curvature,
            np.maximum(difference, 0),
            weight.astype(np.float32),
            np.hypot(speed_x, speed_y),
        )


def _smooth(gray: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(gray.astype(np.float32), (3, 3), 0)


def _mean(plane: np.ndarray) -> np.ndarray:
    return cv2.blur(plane, (_WINDOW, _WINDOW))


def _variance(image: np.ndarray) -> np.ndarray:
    return np.maximum(_mean(image * image) - _mean(image) ** 2, 0)
