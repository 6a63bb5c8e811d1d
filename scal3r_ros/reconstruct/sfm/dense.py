"""Dense depth of frames whose poses are known, from their neighbours in the chunk."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from scal3r_ros.reconstruct.sfm.depth_gates import confirmed, on_surfaces
from scal3r_ros.reconstruct.sfm.model import Model
from scal3r_ros.reconstruct.sfm.photometric import DepthEstimate, refined
from scal3r_ros.reconstruct.sfm.planar import smoothed
from scal3r_ros.reconstruct.sfm.sweep import View, first_depth

_MIN_PLANES, _MAX_PLANES = 16, 48
_NEARER, _FARTHER = 1.4, 0.3
"""How far the planes reach beyond the inverse depths of the frame's own points."""
_GOOD_ANGLE = np.radians(4.0), np.radians(12.0)
"""Angles between the rays of two frames at which depth is precise and images still alike."""
_MIN_SHARED = 15
_REACH = 8
"""Farthest neighbour in time, frames."""
_THREADS = 2
"""Frames computed side by side; more wait for each other."""
_ROUNDS = 2
"""Of refinement, at either size."""


@dataclass(frozen=True)
class DenseDepth:
    """Depth maps of some frames of a model."""

    depth: np.ndarray
    """(S, H, W) float32 z-depth, model units; NaN where unknown."""
    certainty: np.ndarray
    """(S, H, W) float32 inverse relative standard deviation; 0 where depth is unknown."""


def dense_depth(
    images: Sequence[np.ndarray],
    rows: Sequence[int],
    wanted: Sequence[int],
    model: Model,
    intrinsics: np.ndarray,
    neighbours: int,
) -> DenseDepth:
    """Depth of the frames `wanted` from images (H, W) uint8 of the model's `rows`.

    `wanted` counts among `rows`; `intrinsics` (3, 3) are in pixels of the images, the first one's
    centre at (0.5, 0.5).
    """
    K = intrinsics.copy()
    K[:2, 2] -= 0.5
    poses = model.T_model_camera[list(rows)]
    partners = {i: choose_neighbours(model, rows, i, neighbours) for i in wanted}

    def estimate(i: int) -> DepthEstimate:
        views = [View(images[j], np.linalg.inv(poses[j]) @ poses[i], j < i) for j in partners[i]]
        return _estimate(images[i], views, K, _planes(model, rows[i], views, K))

    with ThreadPoolExecutor(_THREADS) as threads:  # array libraries let go of the interpreter
        estimates = dict(zip(wanted, threads.map(estimate, wanted)))
    empty = np.zeros(images[0].shape, np.float32)
    surfaces = [on_surfaces(estimates[i]) if i in estimates else empty for i in range(len(rows))]
    depth = np.full((len(wanted), *images[0].shape), np.nan, np.float32)
    certainty = np.zeros_like(depth)
    for number, i in enumerate(wanted):
        others = [j for j in partners[i] if j in estimates]
        inverse = confirmed(surfaces, poses, K, i, others)
        kept = inverse > 0
        depth[number][kept] = 1.0 / inverse[kept]
        certainty[number][kept] = 1.0 / np.maximum(estimates[i].relative_error[kept], 1e-3)
    return DenseDepth(depth, certainty)


def choose_neighbours(model: Model, rows: Sequence[int], i: int, count: int) -> list[int]:
    """At most `count` of the `rows`, half of them before and half after number `i`: those that see
    the same points from directions that suit best; in order of time."""
    tracks = model.tracks
    mine = tracks.point[tracks.frame == rows[i]]
    ray = tracks.points[mine] - model.T_model_camera[rows[i], :3, 3]
    scores = {}
    for j in range(max(0, i - _REACH), min(len(rows), i + _REACH + 1)):
        theirs = np.isin(mine, tracks.point[tracks.frame == rows[j]])
        if j == i or theirs.sum() < _MIN_SHARED:
            continue
        other = tracks.points[mine[theirs]] - model.T_model_camera[rows[j], :3, 3]
        cosine = (ray[theirs] * other).sum(axis=1)
        cosine /= np.linalg.norm(ray[theirs], axis=1) * np.linalg.norm(other, axis=1)
        angle = float(np.median(np.arccos(np.clip(cosine, -1, 1))))
        fit = min(angle / _GOOD_ANGLE[0], 1.0) * min(_GOOD_ANGLE[1] / max(angle, 1e-9), 1.0)
        scores[j] = float(theirs.mean()) ** 0.5 * fit
    best = sorted(scores, key=lambda j: -scores[j])
    before, after = [j for j in best if j < i], [j for j in best if j > i]
    half = count // 2
    chosen = before[:half] + after[:half]
    chosen += [j for j in best if j not in chosen][: count - len(chosen)]
    return sorted(chosen)


def _planes(model: Model, row: int, views: Sequence[View], K: np.ndarray) -> np.ndarray:
    """Evenly spaced inverse depths over those of the frame's points, so close that a pixel of the
    coarse image moves by about one between two of them."""
    depth = model.observations(row)[1]
    if not len(depth) or not views:
        return np.zeros(0)
    inverse = 1.0 / depth
    far = _FARTHER * np.percentile(inverse, 2)
    near = _NEARER * np.percentile(inverse, 98)
    centres = [np.linalg.inv(view.T_view_frame)[:3, 3] for view in views]
    widest = max(float(np.linalg.norm(centre)) for centre in centres)
    travel = (near - far) * widest * K[0, 0] / 2
    return np.linspace(far, near, int(np.clip(travel, _MIN_PLANES, _MAX_PLANES)))


def _estimate(
    gray: np.ndarray, views: Sequence[View], K: np.ndarray, planes: np.ndarray
) -> DepthEstimate:
    """A first depth at half the size, refined at full size where the neighbours agree below a
    pixel; nothing is known without neighbours."""
    if len(views) < 2 or not len(planes):
        unknown = np.zeros(gray.shape, np.float32)
        return DepthEstimate(unknown, np.full(gray.shape, np.inf, np.float32))
    height, width = gray.shape
    size = width // 2, height // 2
    small = [View(_halved(v.gray, size), v.T_view_frame, v.earlier) for v in views]
    scale = np.diag([size[0] / width, size[1] / height, 1.0])
    half = scale @ K
    half[:2, 2] += (np.diag(scale)[:2] - 1) / 2
    first = first_depth(_halved(gray, size), small, half, planes)
    start = cv2.medianBlur(first.inverse_depth, 3)
    coarse = smoothed(refined(_halved(gray, size), small, half, start, _ROUNDS))
    start = np.where(coarse.inverse_depth > 0, coarse.inverse_depth, start)
    start = cv2.resize(start, (width, height), interpolation=cv2.INTER_LINEAR)
    return smoothed(refined(gray, views, K, start, _ROUNDS))


def _halved(gray: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
