"""A known world to drive through: a grid of streets between buildings, and a route with revisits.

World axes are z up, metres. Depth and colour of every pixel follow from ray casting, so any number
of kilometres costs no memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scal3r_ros.mapping.sim3 import rotation_exp
from scal3r_ros.records import Frame

SETBACK = 8.0
"""Distance of the buildings from the middle of the street, metres."""
VIEW_RANGE = 70.0
"""Depth beyond which nothing is seen, metres."""
ROOF = 14.0
"""Height of the buildings, metres."""
CAMERA_HEIGHT = 1.65
CORNER = 7.0
"""Radius of the turns at crossings, metres."""
ROUTE = "EEENNWWWSS" + "EEENNNNWWWWWSSSSEE" + "EEENNWWWSS"
"""Blocks driven: a lap, a wider lap that shares its first street, and the first lap again."""
STEPS = {"E": (1.0, 0.0), "N": (0.0, 1.0), "W": (-1.0, 0.0), "S": (0.0, -1.0)}
BODY_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Rotation of an optical frame (z forward, y down) in a body frame (x forward, z up)."""


@dataclass(frozen=True, eq=False)
class City:
    """Trajectory and camera; geometry is computed on demand."""

    T_world_camera: np.ndarray
    """(N, 4, 4) true poses of the optical frames."""
    block: float
    """Distance of the street grid's lines, metres."""
    width: int
    height: int
    focal: float
    """Pixels."""
    frame_rate: float = 10.0

    def __len__(self) -> int:
        return len(self.T_world_camera)

    @property
    def intrinsics(self) -> np.ndarray:
        focal, width, height = self.focal, self.width, self.height
        return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])

    def stamp_ns(self, index: int) -> int:
        return int(index * 1_000_000_000 / self.frame_rate) + 1_000_000_000

    def frame(self, index: int) -> Frame:
        """The image that the camera takes at pose `index`."""
        _, rgb = self.render(np.array([index]))
        return Frame(index, self.stamp_ns(index), rgb[0], self.intrinsics)

    def path_length(self) -> float:
        """Metres driven."""
        return float(np.linalg.norm(np.diff(self.T_world_camera[:, :3, 3], axis=0), axis=1).sum())

    def render(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth (S, H, W) float32, NaN for the sky, and colour (S, H, W, 3) uint8."""
        poses = self.T_world_camera[indices]
        u, v = np.arange(self.width) + 0.5, np.arange(self.height) + 0.5
        rays = np.ones((self.height, self.width, 3))
        rays[..., 0] = (u - self.width / 2) / self.focal
        rays[..., 1] = ((v - self.height / 2) / self.focal)[:, None]
        directions = rays.reshape(-1, 3) @ np.swapaxes(poses[:, :3, :3], 1, 2)
        origins = poses[:, :3, 3]
        depth = self._cast(origins, directions)
        hits = origins[:, None] + directions * np.where(np.isfinite(depth), depth, 0.0)[..., None]
        colour = np.where(np.isfinite(depth)[..., None], _paint(hits), 200)
        shape = (len(indices), self.height, self.width)
        return depth.reshape(shape).astype(np.float32), colour.reshape(*shape, 3).astype(np.uint8)

    def _cast(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Ray parameter (= z-depth) of the first surface: (S, R), NaN beyond VIEW_RANGE."""
        with np.errstate(divide="ignore", invalid="ignore"):
            down = -origins[:, None, 2] / directions[..., 2]
            best = np.where(directions[..., 2] < 0, down, np.inf)
            inverse = 1.0 / directions[..., :2]
            cell = np.floor(origins[:, :2] / self.block)
            for dx in (-1, 0, 1):
                for dy in (-1, 0, 1):
                    low = (cell + (dx, dy)) * self.block + SETBACK
                    high = low + self.block - 2 * SETBACK
                    away = np.maximum(low - origins[:, :2], origins[:, :2] - high).max(axis=1)
                    if away.min() > VIEW_RANGE:
                        continue
                    first = (low - origins[:, :2])[:, None] * inverse
                    second = (high - origins[:, :2])[:, None] * inverse
                    enter = np.minimum(first, second).max(axis=-1)
                    leave = np.maximum(first, second).min(axis=-1)
                    rise = origins[:, None, 2] + enter * directions[..., 2]
                    hit = (enter < leave) & (enter > 0) & (rise < ROOF)
                    best = np.where(hit & (enter < best), enter, best)
        return np.where(best < VIEW_RANGE, best, np.nan)


def drive(
    frames: int = 4541,
    length: float = 3724.0,
    width: int = 128,
    height: int = 40,
    route: str = ROUTE,
    wobble: float = 0.01,
) -> City:
    """Drive `route` in `frames` equal steps; `length` metres in all decide the size of a block."""
    corners = np.array([STEPS[letter] for letter in route])
    block = length / len(route)
    for _ in range(4):
        path = _rounded(np.concatenate([[[0.0, 0.0]], np.cumsum(corners, axis=0)]) * block)
        driven = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        block *= length / driven[-1]
    at = np.linspace(0.0, driven[-1], frames)
    position = np.stack([np.interp(at, driven, path[:, axis]) for axis in range(2)], axis=1)
    heading = np.unwrap(np.arctan2(*np.diff(path, axis=0).T[::-1]))
    yaw = np.interp(at, (driven[1:] + driven[:-1]) / 2, heading)
    time = np.arange(frames)
    sway = wobble * np.stack([np.sin(time / 7.0), np.sin(time / 11.0 + 1.0)], axis=1)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    turn = rotation_exp(np.stack([0 * yaw, 0 * yaw, yaw], axis=1))
    tilt = rotation_exp(np.stack([sway[:, 0], sway[:, 1], 0 * yaw], axis=1))
    poses[:, :3, :3] = turn @ tilt @ BODY_OPTICAL
    poses[:, :2, 3] = position
    poses[:, 2, 3] = CAMERA_HEIGHT + sway.sum(axis=1)
    return City(poses, block, width, height, focal=0.6 * width)


def _rounded(corners: np.ndarray) -> np.ndarray:
    """Polyline with circular arcs at its turns, sampled densely: (M, 2)."""
    points = [corners[:1]]
    for before, corner, after in zip(corners, corners[1:], corners[2:]):
        arriving = (corner - before) / np.linalg.norm(corner - before)
        leaving = (after - corner) / np.linalg.norm(after - corner)
        if abs(arriving @ leaving) > 0.99:
            points.append(corner[None])
            continue
        angle = np.linspace(0.0, np.pi / 2, 24)[:, None]
        start = corner - CORNER * arriving
        points.append(start + CORNER * (np.sin(angle) * arriving + (1 - np.cos(angle)) * leaving))
    points.append(corners[-1:])
    return np.concatenate(points)


def _paint(points: np.ndarray) -> np.ndarray:
    """Colour of surface points (..., 3): irregular checks of half a metre."""
    cells = np.floor(points / 0.5 + 1e-3).astype(np.int64)
    mixed = (cells[..., 0] * 73856093) ^ (cells[..., 1] * 19349663) ^ (cells[..., 2] * 83492791)
    return np.stack([40 + (mixed >> shift) % 180 for shift in (0, 7, 13)], axis=-1)
