"""What the live view draws, as plain arrays of bounded size: thinned points, frusta, line strips.

All coordinates are in the map frame and map units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_TRAJECTORY = 5000
MAX_LOOPS = 1000


@dataclass(frozen=True)
class ViewSnapshot:
    """One state of the map, all of it belonging to one revision."""

    points: np.ndarray
    """(N, 3) float."""
    colors: np.ndarray
    """(N, 3) uint8."""
    T_map_camera: np.ndarray
    """(M, 4, 4) rigid camera poses in the order of time; optical axes."""
    loops: np.ndarray
    """(L, 2, 3) both ends of every loop edge."""
    frame_size: tuple[int, int] = (640, 480)
    """Width and height of the images in pixels; shapes the frusta."""
    focal: float = 0.0
    """Focal length in pixels; 0 where unknown (60 degrees across are drawn)."""

    def __post_init__(self) -> None:
        expected = {
            "points": (self.points.shape, (len(self.points), 3)),
            "colors": (self.colors.shape, (len(self.points), 3)),
            "T_map_camera": (self.T_map_camera.shape, (len(self.T_map_camera), 4, 4)),
            "loops": (self.loops.shape, (len(self.loops), 2, 3)),
        }
        for name, (found, wanted) in expected.items():
            if found != wanted:
                raise ValueError(f"live view: {name} is {found}, expected {wanted}")

    @property
    def half_angles(self) -> tuple[float, float]:
        """Tangents of half the horizontal and vertical field of view."""
        width, height = self.frame_size
        focal = self.focal if self.focal > 0.0 else width / (2.0 * np.tan(np.radians(30.0)))
        return width / (2.0 * focal), height / (2.0 * focal)


def thin(count: int, limit: int) -> np.ndarray:
    """At most `limit` indices below `count`, evenly spread and ending with the last one."""
    if count <= limit:
        return np.arange(count)
    return np.linspace(count - 1, 0, limit).round().astype(np.int64)[::-1]


def thin_points(points: np.ndarray, colors: np.ndarray, limit: int) -> tuple:
    """At most `limit` finite points with their colours, the same choice for the same input.

    A fixed permutation, not every n-th point: maps are stored in order of space, where a regular
    choice would draw stripes.
    """
    finite = np.isfinite(points).all(axis=1)
    points, colors = points[finite], colors[finite]
    if len(points) > limit:
        chosen = np.random.default_rng(0).choice(len(points), limit, replace=False)
        points, colors = points[chosen], colors[chosen]
    return np.ascontiguousarray(points, np.float32), np.ascontiguousarray(colors, np.uint8)


def trajectory_segments(T_map_camera: np.ndarray) -> np.ndarray:
    """(M - 1, 2, 3) segments between following camera centres."""
    centres = T_map_camera[thin(len(T_map_camera), MAX_TRAJECTORY), :3, 3]
    return np.stack([centres[:-1], centres[1:]], axis=1) if len(centres) > 1 else _no_segments()


def room_for_frusta(T_map_camera: np.ndarray, size: float, limit: int) -> int:
    """How many frusta of this size fit along the path without hiding each other; at least one."""
    centres = T_map_camera[thin(len(T_map_camera), MAX_TRAJECTORY), :3, 3]
    length = float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())
    return int(np.clip(length / (1.2 * size), 1, limit))


def frusta_segments(T_map_camera: np.ndarray, half_angles: tuple, size: float) -> np.ndarray:
    """(8 M, 2, 3) edges of one pyramid per pose, `size` map units deep."""
    if len(T_map_camera) == 0:
        return _no_segments()
    x, y = size * half_angles[0], size * half_angles[1]
    corners = np.array([[-x, -y, size], [x, -y, size], [x, y, size], [-x, y, size]])
    ring = np.roll(corners, -1, axis=0)
    edges = np.stack(
        [np.concatenate([np.zeros((4, 3)), corners]), np.concatenate([corners, ring])], axis=1
    )
    moved = np.einsum("mij,kej->mkei", T_map_camera[:, :3, :3], edges)
    moved += T_map_camera[:, None, None, :3, 3]
    return moved.reshape(-1, 2, 3)


def extent(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle and radius of what is worth seeing; far outliers do not count.

    points: (N, 3), centres: (M, 3) camera centres. The radius is never zero.
    """
    everything = [part for part in (points[thin(len(points), 20000)], centres) if len(part)]
    if not everything:
        return np.zeros(3), 1.0
    stacked = np.concatenate(everything)
    middle = np.median(stacked, axis=0)
    radius = float(np.percentile(np.linalg.norm(stacked - middle, axis=1), 90.0))
    return middle, max(radius, 1e-3)


def point_size(count: int, radius: float) -> float:
    """Edge of a drawn point in map units: sparse maps get larger ones."""
    return 0.004 * radius * float(np.clip(np.sqrt(50_000 / max(count, 1)), 1.0, 2.0))


def overview(points: np.ndarray, centres: np.ndarray, up: np.ndarray) -> tuple:
    """(position, look_at) of a viewpoint behind and above the map, for the unit vector `up`."""
    middle, radius = extent(points, centres)
    side = np.cross(up, [0.0, 1.0, 0.0] if abs(up[1]) < 0.9 else [0.0, 0.0, 1.0])
    back = np.cross(side, up) * 0.6 + side * -0.8
    return middle + 1.25 * radius * back + 1.0 * radius * up, middle


def _no_segments() -> np.ndarray:
    return np.zeros((0, 2, 3))
