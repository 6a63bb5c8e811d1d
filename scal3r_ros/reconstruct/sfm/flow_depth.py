"""Depth below a pixel: each neighbouring image is drawn as the frame would see it with the depth so
far, optical flow tells what is still off, and all neighbours are triangulated together.

Drawing the neighbour first leaves little motion and little change of shape for the flow, which
makes it work across wide steps (Okutomi and Kanade, PAMI 1993, for the sum over baselines).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from scal3r_ros.reconstruct.sfm.sweep import View

_FLOW_ERROR = 0.25
"""Standard deviation of the flow where texture is plenty, px."""
_NOISE = 3.0
"""Standard deviation of a grey level."""
_WINDOW = 5
_ROUNDS = 3
_AGREES = 1.0
"""Residual up to which a neighbour supports a depth, px."""
_MIN_VIEWS = 2


@dataclass(frozen=True)
class DepthEstimate:
    """Inverse depth of one frame."""

    inverse_depth: np.ndarray
    """(H, W) float32, model units; 0 where unknown."""
    relative_error: np.ndarray
    """(H, W) float32 standard deviation relative to the depth; infinite where unknown."""


def refined(
    gray: np.ndarray, views: Sequence[View], intrinsics: np.ndarray, start: np.ndarray
) -> DepthEstimate:
    """Refine the inverse depth `start` (H, W) of an image (H, W) uint8; `intrinsics` with the first
    pixel centre at (0, 0)."""
    texture = _structure(gray)
    rows = [_measure(gray, view, intrinsics, start, texture) for view in views]
    slope, offset, information = (np.stack(parts) for parts in zip(*rows))
    return _triangulated(slope, offset, information)


def _measure(
    gray: np.ndarray,
    view: View,
    intrinsics: np.ndarray,
    inverse_depth: np.ndarray,
    texture: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What one neighbour says: slope (H, W, 2) px per unit of inverse depth and offset (H, W, 2) px
    of the linear equations slope * inverse depth = offset, and the inverse variance (H, W) of the
    offset along the slope, 0 where nothing is seen."""
    height, width = gray.shape
    far, near = _rays(view, intrinsics, height, width)
    scale = far[2] + inverse_depth * near[2]
    visible = scale > 1e-6
    scale = np.where(visible, scale, 1.0)
    x = ((far[0] + inverse_depth * near[0]) / scale).astype(np.float32)
    y = ((far[1] + inverse_depth * near[1]) / scale).astype(np.float32)
    drawn = cv2.remap(view.gray, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    flow = _flow(gray, drawn)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    at_x = (columns + flow[..., 0]).astype(np.float32)
    at_y = (rows + flow[..., 1]).astype(np.float32)
    found_x, found_y = (
        cv2.remap(plane, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for plane in (x, y)
    )
    slope = np.stack([near[0] - found_x * near[2], near[1] - found_y * near[2]], axis=-1)
    offset = np.stack([found_x * far[2] - far[0], found_y * far[2] - far[1]], axis=-1)
    for equation in (slope, offset):
        equation /= scale[..., None]
    visible &= (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    visible &= (at_x > 0) & (at_x < width - 1) & (at_y > 0) & (at_y < height - 1)
    along = _energy_along(texture, view, intrinsics)
    information = visible / (_FLOW_ERROR**2 + _NOISE**2 / np.maximum(along, 1e-3))
    return slope, offset, information.astype(np.float32)


def _rays(
    view: View, intrinsics: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Homogeneous pixel (3, H, W) in the neighbour of each pixel at infinity, and (3, 1, 1) what a
    unit of inverse depth adds to it."""
    columns, rows = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    pixels = np.stack([columns, rows, np.ones_like(rows)]).reshape(3, -1)
    turn = intrinsics @ view.T_view_frame[:3, :3] @ np.linalg.inv(intrinsics)
    far = (turn @ pixels).reshape(3, height, width).astype(np.float32)
    near = (intrinsics @ view.T_view_frame[:3, 3]).astype(np.float32)
    return far, near[:, None, None]


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W, 2) optical flow: where each pixel of the first image is in the second, relative."""
    method = cv2.DISOpticalFlow_create(  # type: ignore[attr-defined]  # missing in the stub
        cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
    )
    method.setFinestScale(0 if first.shape[1] < 240 else 1)
    return method.calc(first, second, None)


def _structure(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over a window of the products of the image's derivatives: xx, xy, yy (H, W)."""
    image = cv2.GaussianBlur(gray.astype(np.float32), (3, 3), 0)
    across = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    down = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    window = (_WINDOW, _WINDOW)
    products = (across * across, across * down, down * down)
    xx, xy, yy = (cv2.blur(product, window) * _WINDOW**2 for product in products)
    return xx, xy, yy


def _energy_along(
    texture: tuple[np.ndarray, np.ndarray, np.ndarray], view: View, intrinsics: np.ndarray
) -> np.ndarray:
    """(H, W) texture energy along the epipolar lines: an edge parallel to them tells nothing."""
    centre = intrinsics @ np.linalg.inv(view.T_view_frame)[:3, 3]
    height, width = texture[0].shape
    x = centre[0] - centre[2] * np.arange(width)[None, :]
    y = centre[1] - centre[2] * np.arange(height)[:, None]
    square = np.maximum(x * x + y * y, 1e-12)
    return (x * x * texture[0] + 2 * x * y * texture[1] + y * y * texture[2]) / square


def _triangulated(slope: np.ndarray, offset: np.ndarray, information: np.ndarray) -> DepthEstimate:
    """Robust least squares over the neighbours (V, H, W, 2), by reweighting (Tukey's kernel)."""
    squares = (slope * slope).sum(axis=-1)
    products = (slope * offset).sum(axis=-1)
    weights = information
    for _ in range(_ROUNDS):
        strength = (weights * squares).sum(axis=0)
        solution = (weights * products).sum(axis=0) / np.maximum(strength, 1e-12)
        residual = np.linalg.norm(slope * solution[None, ..., None] - offset, axis=-1)
        weights = information * np.clip(1 - (residual / (3 * _AGREES)) ** 2, 0, None) ** 2
    agrees = (residual < _AGREES) & (information > 0)
    count = agrees.sum(axis=0)
    strength = (agrees * information * squares).sum(axis=0)
    excess = (agrees * residual**2 * information).sum(axis=0) / np.maximum(2 * count - 1, 1)
    error = np.sqrt(np.maximum(excess, 1.0) / np.maximum(strength, 1e-12))
    good = (count >= _MIN_VIEWS) & (solution > 0) & (strength > 0)
    inverse_depth = np.where(good, solution, 0).astype(np.float32)
    relative = np.where(good, error / np.where(good, solution, 1.0), np.inf)
    return DepthEstimate(inverse_depth, relative.astype(np.float32))
