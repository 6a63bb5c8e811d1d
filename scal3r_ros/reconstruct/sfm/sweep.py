"""A first depth for every pixel of a frame: plane sweep (Collins, CVPR 1996) with semi-global
aggregation (Hirschmueller, PAMI 2008).

It needs no start, so it copes with wide steps and turns; it is coarse and fills what has no texture
from around. `photometric` refines it and says what can be believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_WINDOW = 5
_NOISE = 4.0
"""Grey levels of contrast below which texture counts less and less."""
_STEP_PENALTY, _JUMP_PENALTY = 0.06, 0.5
"""Cost of neighbouring pixels on neighbouring planes, and on others."""
_EDGE = 12.0
"""Grey levels between neighbours that halve the cost of a jump: surfaces end at image edges."""


@dataclass(frozen=True)
class View:
    """A neighbouring image as one frame sees it."""

    gray: np.ndarray
    """(H, W) uint8."""
    T_view_frame: np.ndarray
    """(4, 4) rigid, model units."""
    earlier: bool
    """Whether it comes before the frame in time: what is hidden there is often seen later."""


@dataclass(frozen=True)
class FirstDepth:
    """A depth for every pixel, believable or not."""

    inverse_depth: np.ndarray
    """(H, W) float32, model units; pixels without texture have what suits those around."""
    evidence: np.ndarray
    """(H, W) float32: by how much the images speak for this depth rather than for any other, in
    units of correlation; about 0 where there is no texture, as in the sky."""


def first_depth(
    gray: np.ndarray, views: Sequence[View], intrinsics: np.ndarray, planes: np.ndarray
) -> FirstDepth:
    """Depth of an image (H, W) uint8 from fronto-parallel `planes` (D,) of evenly spaced inverse
    depths, increasing, model units.

    `intrinsics` (3, 3) belong to all images; first pixel centre (0, 0).
    """
    reference = _contrast(gray)
    sides = [[view for view in views if view.earlier == side] for side in (True, False)]
    costs = [_cost_of_planes(reference, side, intrinsics, planes) for side in sides if side]
    cost = np.minimum(*costs) if len(costs) == 2 else costs[0]
    volume = np.ascontiguousarray(cost.transpose(1, 2, 0))
    aggregated = _aggregated(volume, gray)
    best = aggregated.argmin(axis=2)
    evidence = volume.mean(axis=2) - np.take_along_axis(volume, best[..., None], axis=2)[..., 0]
    window = (_WINDOW, _WINDOW)
    return FirstDepth(_between_planes(aggregated, best, planes), cv2.blur(evidence, window))


def _contrast(gray: np.ndarray) -> np.ndarray:
    """(H, W) float32 of zero mean and about unit variance in every window, less where there is
    only noise."""
    image = gray.astype(np.float32)
    window = (_WINDOW, _WINDOW)
    centred = image - cv2.blur(image, window)
    spread = np.sqrt(cv2.blur(centred * centred, window))
    return centred / (spread + _NOISE)


def _cost_of_planes(
    reference: np.ndarray, views: Sequence[View], intrinsics: np.ndarray, planes: np.ndarray
) -> np.ndarray:
    """(D, H, W) float32, 1 minus the mean correlation of the windows with those of all views."""
    height, width = reference.shape
    contrasts = [_contrast(view.gray) for view in views]
    inverse = np.linalg.inv(intrinsics)
    costs = np.empty((len(planes), height, width), np.float32)
    for cost, plane in zip(costs, planes):
        total = np.zeros_like(reference)
        for view, contrast in zip(views, contrasts):
            turn = view.T_view_frame[:3, :3].copy()
            turn[:, 2] += plane * view.T_view_frame[:3, 3]
            warp = intrinsics @ turn @ inverse
            total += cv2.warpPerspective(
                contrast, warp, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            )
        total *= reference
        cv2.blur(total, (_WINDOW, _WINDOW), dst=cost)
    costs *= -1.0 / len(views)
    costs += 1.0
    return costs


def _aggregated(volume: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """(H, W, D) costs summed over paths from four sides."""
    image = gray.astype(np.float32)
    total = _along_rows(volume, np.abs(np.diff(image, axis=1)))
    turned = np.ascontiguousarray(volume.transpose(1, 0, 2))
    total += _along_rows(turned, np.abs(np.diff(image, axis=0)).T).transpose(1, 0, 2)
    return total


def _along_rows(volume: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Sum of both directions along the second axis of (H, W, D); `steps` (H, W - 1) are grey-level
    differences of neighbours."""
    height, width, depth = volume.shape
    jump = _STEP_PENALTY + (_JUMP_PENALTY - _STEP_PENALTY) / (1.0 + steps / _EDGE)
    path = np.stack([volume[:, 0], volume[:, -1]])  # (2, H, D): from the left, from the right
    total = np.zeros_like(volume)
    total[:, 0] += path[0]
    total[:, -1] += path[1]
    for column in range(1, width):
        opposite = width - 1 - column
        limit = np.stack([jump[:, column - 1], jump[:, opposite]])[..., None]
        path = _one_step(path, limit)
        path[0] += volume[:, column]
        path[1] += volume[:, opposite]
        total[:, column] += path[0]
        total[:, opposite] += path[1]
    return total


def _one_step(path: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Cheapest way to each plane at the next pixel, relative to the cheapest of all."""
    path = path - path.min(axis=2, keepdims=True)
    best = np.minimum(path, limit)
    np.minimum(best[..., 1:], path[..., :-1] + _STEP_PENALTY, out=best[..., 1:])
    np.minimum(best[..., :-1], path[..., 1:] + _STEP_PENALTY, out=best[..., :-1])
    return best


def _between_planes(costs: np.ndarray, best: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Inverse depth at the lowest of the costs (H, W, D), between planes by a parabola."""
    inner = np.clip(best, 1, len(planes) - 2)[..., None]
    before, middle, after = (
        np.take_along_axis(costs, inner + step, axis=2)[..., 0] for step in (-1, 0, 1)
    )
    bend = np.maximum(before + after - 2 * middle, 1e-6)
    shift = np.clip((before - after) / (2 * bend), -0.5, 0.5)
    shift = np.where(inner[..., 0] == best, shift, 0.0)
    return (planes[best] + shift * (planes[1] - planes[0])).astype(np.float32)
