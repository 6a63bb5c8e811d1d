"""Camera pose from points whose place is known and where they are seen, with outliers.

A good guess is polished by robust least squares (Tukey's weights); where that does not explain the
image, RANSAC finds another start.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from scal3r_ros import rigid

MIN_POINTS = 12
INLIER_PIXELS = 2.5
"""Largest distance of an inlier from where it belongs."""
_ROUNDS = 10
_TRUSTED_SHARE = 0.6
"""Share of points that the guess must explain, else RANSAC is asked."""
_MIN_SHARE = 0.3
_RANSAC_ROUNDS = 200


@dataclass(frozen=True)
class Resection:
    """A pose and which points agree with it."""

    T_map_camera: np.ndarray
    inliers: np.ndarray
    """(N,) bool."""


class TooFewPoints(ValueError):
    """The points do not determine a pose."""


def resect(
    points: np.ndarray, rays: np.ndarray, trust: np.ndarray, guess: np.ndarray, focal: float
) -> Resection:
    """Pose from `points` (N, 3) in the map seen along `rays` (N, 2), x / z and y / z.

    `trust` (N,) says how much a point counts; `guess` (4, 4) is T_map_camera as expected; `focal`
    in pixels. Raises `TooFewPoints`.
    """
    if len(points) < MIN_POINTS:
        raise TooFewPoints(f"{len(points)} known points are seen, {MIN_POINTS} are needed")
    reach = INLIER_PIXELS / focal
    found = _polished(points, rays, trust, guess, reach)
    if found.inliers.mean() < _TRUSTED_SHARE:
        other = _by_sampling(points, rays, trust, reach)
        if other is not None and other.inliers.sum() > found.inliers.sum():
            found = other
    count = int(found.inliers.sum())
    if count < max(MIN_POINTS, _MIN_SHARE * len(points)):
        raise TooFewPoints(f"only {count} of {len(points)} known points agree on a pose")
    return found


def resect_anywhere(points: np.ndarray, rays: np.ndarray, focal: float) -> Resection:
    """The same without a guess, where most points may be wrong. Raises `TooFewPoints`."""
    found = None
    if len(points) >= MIN_POINTS:
        found = _by_sampling(points, rays, np.ones(len(points)), INLIER_PIXELS / focal)
    count = 0 if found is None else int(found.inliers.sum())
    if found is None or count < MIN_POINTS:
        raise TooFewPoints(f"only {count} of {len(points)} recognised points agree on a pose")
    return found


def misses(points: np.ndarray, rays: np.ndarray, T_map_camera: np.ndarray) -> np.ndarray:
    """Distance (N,) between `rays` and where the points appear; infinite behind the camera."""
    local = (points - T_map_camera[:3, 3]) @ T_map_camera[:3, :3]
    front = local[:, 2] > 1e-6
    safe = np.where(front, local[:, 2], 1.0)
    distance = np.linalg.norm(local[:, :2] / safe[:, None] - rays, axis=1)
    return np.where(front, distance, np.inf)


def _polished(
    points: np.ndarray, rays: np.ndarray, trust: np.ndarray, guess: np.ndarray, inlier: float
) -> Resection:
    """Gauss-Newton over the camera's pose; the weights narrow from round to round."""
    T_camera_map = rigid.inverse(rigid.orthonormal(guess))
    for reach in np.geomspace(16.0, 1.5, _ROUNDS) * inlier:
        local = points @ T_camera_map[:3, :3].T + T_camera_map[:3, 3]
        z = np.maximum(local[:, 2], 1e-6)
        seen = local[:, :2] / z[:, None]
        residual = rays - seen
        size = np.square(residual).sum(axis=1) / reach**2
        weight = np.where((size < 1.0) & (local[:, 2] > 1e-6), trust * np.square(1.0 - size), 0.0)
        if np.count_nonzero(weight) < 6:
            continue
        step = _newton_step(local, z, seen, residual, weight)
        turn = Rotation.from_rotvec(step[3:]).as_matrix()
        T_camera_map = rigid.from_parts(turn, step[:3]) @ T_camera_map
    pose = rigid.inverse(T_camera_map)
    return Resection(pose, misses(points, rays, pose) < inlier)


def _newton_step(
    local: np.ndarray, z: np.ndarray, seen: np.ndarray, residual: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Shift and rotation vector (6,) of the points in the camera's frame."""
    x, y = seen[:, 0], seen[:, 1]
    zero, inverse = np.zeros_like(z), 1.0 / z
    rows = np.stack(
        [
            np.stack([inverse, zero, -x * inverse, -x * y, 1 + x * x, -y], axis=1),
            np.stack([zero, inverse, -y * inverse, -1 - y * y, x * y, x], axis=1),
        ],
        axis=1,
    )
    weighted = rows * weight[:, None, None]
    normal = np.einsum("nri,nrj->ij", weighted, rows)
    # A hair of damping: few points may leave a direction free.
    normal[np.diag_indices(6)] *= 1.0 + 1e-6
    return np.linalg.lstsq(normal, np.einsum("nri,nr->i", weighted, residual), rcond=None)[0]


def _by_sampling(
    points: np.ndarray, rays: np.ndarray, trust: np.ndarray, inlier: float
) -> Resection | None:
    done, turn, shift, _ = cv2.solvePnPRansac(
        points.astype(np.float64),
        rays.astype(np.float64),
        np.eye(3),
        None,
        iterationsCount=_RANSAC_ROUNDS,
        reprojectionError=1.5 * inlier,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not done:
        return None
    T_camera_map = rigid.from_parts(cv2.Rodrigues(turn)[0], shift[:, 0])
    return _polished(points, rays, trust, rigid.inverse(T_camera_map), inlier)
