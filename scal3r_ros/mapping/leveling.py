"""Axes of the map frame: z up (REP 103), x where the first camera looks, origin at the first
camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scal3r_ros.mapping.camera import unproject, valid_pixels
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import ChunkPrediction

OPTICAL_UP = np.array([0.0, -1.0, 0.0])


class LevelUnknown(ValueError):
    """There is no floor in sight, or no gravity measurement."""


@dataclass(frozen=True)
class Floor:
    """A plane that the camera stands above, in chunk coordinates."""

    normal: np.ndarray
    """(3,) unit, pointing up, towards the cameras."""
    height: float
    """Median distance of the cameras from the plane, chunk units."""
    sigma: float
    """Standard deviation of the height."""
    inliers: float
    """Share of the points below the cameras that lie in the plane."""


def map_from_chunk(T_chunk_camera: np.ndarray, up: np.ndarray | None) -> Sim3:
    """S_map_chunk of the first chunk from the first frame's pose (4, 4) and `up` in chunk
    coordinates.

    With `up` None the map keeps the first camera's optical axes.
    """
    rotation, origin = T_chunk_camera[:3, :3], T_chunk_camera[:3, 3]
    if up is None:
        axes = rotation.T
    else:
        z = up / np.linalg.norm(up)
        forward = rotation[:, 2] - z * (z @ rotation[:, 2])
        if np.linalg.norm(forward) < 1e-3:
            forward = -rotation[:, 1] + z * (z @ rotation[:, 1])
        x = forward / np.linalg.norm(forward)
        axes = np.stack([x, np.cross(z, x), z])
    return Sim3(np.ones(()), axes, -axes @ origin)


def up_from_first_camera(T_chunk_camera: np.ndarray) -> np.ndarray:
    """Up (3,) in chunk coordinates if the first camera is held level."""
    return T_chunk_camera[:3, :3] @ OPTICAL_UP


def up_from_gravity(
    T_chunk_camera: Sequence[np.ndarray], gravity_camera: Sequence[np.ndarray]
) -> np.ndarray:
    """Up (3,) in chunk coordinates from accelerometer readings at rest (reaction to gravity,
    pointing up), each in the optical frame of its camera."""
    if not len(gravity_camera):
        raise LevelUnknown("no gravity measurement; check the IMU topic or choose first_camera")
    total = np.sum(
        [T[:3, :3] @ (g / np.linalg.norm(g)) for T, g in zip(T_chunk_camera, gravity_camera)],
        axis=0,
    )
    if np.linalg.norm(total) < 0.5 * len(gravity_camera):
        raise LevelUnknown("gravity measurements contradict each other")
    return total / np.linalg.norm(total)


def fit_floor(prediction: ChunkPrediction, tilt: float = np.radians(40.0)) -> Floor:
    """Largest plane below the cameras whose normal is within `tilt` of the images' up direction.

    Consensus of three points (fixed seed), then least squares on the inliers.
    """
    points, origin, up, unit = _below(prediction)
    random = np.random.default_rng(0)
    picks = points[random.integers(0, len(points), (600, 3))]
    normals = np.cross(picks[:, 1] - picks[:, 0], picks[:, 2] - picks[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    usable = lengths > 1e-9 * unit**2
    normals, picks = normals[usable] / lengths[usable, None], picks[usable]
    normals *= np.where(normals @ up < 0, -1.0, 1.0)[:, None]
    level = normals @ up > np.cos(tilt)
    if not level.any():
        raise LevelUnknown("no level plane below the camera")
    normals, picks = normals[level], picks[level]
    offsets = (normals * picks[:, 0]).sum(axis=1)
    tolerance = 0.02 * unit
    votes = (np.abs(points @ normals.T - offsets) < tolerance).sum(axis=0)
    below = origin @ normals.T - offsets > 0.05 * unit
    best = int(np.where(below, votes, -1).argmax())
    normal, offset = normals[best], offsets[best]
    for _ in range(5):
        inside = np.abs(points @ normal - offset) < tolerance
        if inside.sum() < 50:
            raise LevelUnknown("the floor has too few points")
        centre = points[inside].mean(axis=0)
        normal = np.linalg.svd(points[inside] - centre, full_matrices=False)[2][2]
        normal = normal if normal @ up > 0 else -normal
        offset = normal @ centre
    under = (points @ normal - offset < -3.0 * tolerance).mean()
    if inside.mean() < 0.2 or under > 0.25:
        raise LevelUnknown(
            f"{inside.mean():.0%} of the points below the camera are level and {under:.0%} lie "
            f"deeper; a floor needs more than 20% and less than 25%"
        )
    heights = prediction.T_chunk_camera[:, :3, 3] @ normal - offset
    spread = np.std(points[inside] @ normal - offset) / np.sqrt(len(heights))
    sigma = float(np.hypot(spread, np.std(heights) / np.sqrt(len(heights))))
    return Floor(normal, float(np.median(heights)), sigma, float(inside.mean()))


def _below(prediction: ChunkPrediction) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Near points (N, 3) below the cameras' horizon, mean camera centre, mean up, median depth."""
    step = max(1, int(np.sqrt(prediction.depth.size / 20000)))
    poses = prediction.T_chunk_camera
    points = unproject(prediction.depth, prediction.intrinsics, poses, step)
    depth = prediction.depth[:, ::step, ::step]
    good = valid_pixels(depth, prediction.confidence[:, ::step, ::step])
    if not good.any():
        raise LevelUnknown("the chunk has no valid depth")
    up = (poses[:, :3, :3] @ OPTICAL_UP).mean(axis=0)
    up /= np.linalg.norm(up)
    unit = float(np.median(depth[good]))
    under = ((points - poses[:, None, None, :3, 3]) @ up) < -0.02 * unit
    near = good & under & (depth < 2.0 * unit)
    if near.sum() < 100:
        raise LevelUnknown("too few points below the camera")
    return points[near].astype(np.float64), poses[:, :3, 3].mean(axis=0), up, unit
