"""Surfaces are smooth: inverse depth, which is linear in the pixels of a plane, is fitted by one in
the window around every pixel, weighted by how precisely each is known.

Noise of weak texture averages out whatever the slant, and where no plane fits two surfaces meet:
there the matching windows saw both, and depth is not to be believed.
"""

from __future__ import annotations

import cv2
import numpy as np

from scal3r_ros.reconstruct.sfm.photometric import DepthEstimate

_REACH = 5
"""Half the edge of a window, px."""
_ROUGHNESS = 0.015, 0.06
"""Largest RMS distance from the plane, relative to the depth: of precise pixels, and of any."""
_NOISIER = 3.0
"""How much larger it may be than what is known of the pixels' own errors."""
_LEAST_KNOWN = 0.4
"""Smallest share of a window with a depth."""
_BEST = 0.004
"""Relative standard deviation of a pixel that weighs most."""
_INDEPENDENT = 12.0
"""Neighbouring pixels whose errors are one and the same."""


def smoothed(estimate: DepthEstimate) -> DepthEstimate:
    """The estimate with each pixel on the plane of its window; unknown where there is none."""
    known = (estimate.inverse_depth > 0) & np.isfinite(estimate.relative_error)
    weight = np.zeros(known.shape, np.float32)
    weight[known] = 1.0 / (estimate.relative_error[known] ** 2 + _BEST**2)
    weight *= _BEST**2
    value, left = _plane_fit(estimate.inverse_depth, weight)
    window = (2 * _REACH + 1, 2 * _REACH + 1)
    share = cv2.blur(known.astype(np.float32), window)
    rough = np.sqrt(left) / np.maximum(value, 1e-12)
    expected = np.sqrt(share * _BEST**2 / np.maximum(cv2.blur(weight, window), 1e-12))
    allowed = np.clip(_NOISIER * expected, *_ROUGHNESS)
    good = (value > 0) & (share > _LEAST_KNOWN) & (rough < allowed)
    independent = np.maximum(share * window[0] * window[1] / _INDEPENDENT, 1.0)
    precision = cv2.blur(weight, window) / _BEST**2 * independent
    error = np.sqrt(rough**2 / independent + 1.0 / np.maximum(precision, 1e-12))
    return DepthEstimate(
        np.where(good, value, 0).astype(np.float32),
        np.where(good, error, np.inf).astype(np.float32),
    )


def _plane_fit(value: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted fit of a + b x + c y in the window of every pixel: a (H, W), and the mean squared
    distance from it (H, W)."""
    ones, ramp = np.ones(2 * _REACH + 1), np.arange(-_REACH, _REACH + 1.0) / _REACH

    def moment(plane: np.ndarray, across: int, down: int) -> np.ndarray:
        return cv2.sepFilter2D(plane, cv2.CV_64F, ones * ramp**across, ones * ramp**down)

    plane = weight.astype(np.float64)
    s, x, y = (moment(plane, *powers) for powers in ((0, 0), (1, 0), (0, 1)))
    xx, xy, yy = (moment(plane, *powers) for powers in ((2, 0), (1, 1), (0, 2)))
    times = plane * value
    t, tx, ty = (moment(times, *powers) for powers in ((0, 0), (1, 0), (0, 1)))
    square = moment(times * value, 0, 0)
    tiny = 1e-6 * s + 1e-30  # a window with one textured line has no slope across it
    xx, yy = xx + tiny, yy + tiny
    first, second, third = xx * yy - xy * xy, xy * y - x * yy, x * xy - xx * y
    determinant = np.maximum(s * first + x * second + y * third, 1e-300)
    a = (first * t + second * tx + third * ty) / determinant
    b = (second * t + (s * yy - y * y) * tx + (x * y - s * xy) * ty) / determinant
    c = (third * t + (x * y - s * xy) * tx + (s * xx - x * x) * ty) / determinant
    left = (square - a * t - b * tx - c * ty) / np.maximum(s, 1e-30)
    return np.where(s > 1e-9, a, 0.0), np.maximum(left, 0.0)
