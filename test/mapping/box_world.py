"""Rooms of boxes whose floor plan is known: exact depth by casting rays, and the true grid."""

from dataclasses import dataclass

import numpy as np

from scal3r_ros.mapping.occupancy import Scan

OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class World:
    """Axis-aligned boxes (low corner, high corner) above a floor with holes and ramps."""

    boxes: tuple = ()
    holes: tuple = ()
    """(x0, y0, x1, y1): there the ground is a metre lower."""
    ramp: tuple | None = None
    """(x0, x1, rise): the floor rises evenly between two x and stays up."""
    glass: tuple | None = None
    """A box of which cameras see no depth."""

    def floor(self, x):
        if self.ramp is None:
            return np.zeros_like(x)
        start, end, rise = self.ramp
        return np.clip((x - start) / (end - start), 0.0, 1.0) * rise

    def depth(self, origin, directions):
        """Ray parameter (R,) of the first surface, NaN where there is none."""
        best = self._ground(origin, directions)
        hits = [_box(origin, directions, *box) for box in self.boxes]
        best = np.min([best, *hits], axis=0)
        if self.glass is not None:
            best[_box(origin, directions, *self.glass) <= best] = np.nan
        return np.where(np.isfinite(best) & (best < 30.0), best, np.nan)

    def _ground(self, origin, directions):
        """Where rays meet a flat floor; else march to below the ground, then by bisection."""
        if self.ramp is None and not self.holes:
            with np.errstate(divide="ignore"):
                return np.where(directions[:, 2] < 0, -origin[2] / directions[:, 2], np.inf)
        reach = np.linspace(0.05, 8.0, 100)
        along = origin + directions[:, None] * reach[:, None]
        below = along[..., 2] < self._height(along)
        first = np.where(below.any(axis=1), below.argmax(axis=1), -1)
        high = np.where(first >= 0, reach[first], np.inf)
        low = np.where(first > 0, reach[np.maximum(first - 1, 0)], 0.0)
        for _ in range(12):
            middle = np.where(np.isfinite(high), (low + high) / 2, 0.0)
            at = origin + directions * middle[:, None]
            inside = at[:, 2] < self._height(at)
            high = np.where(np.isfinite(high) & inside, middle, high)
            low = np.where(inside, low, middle)
        return high

    def _height(self, points):
        height = self.floor(points[..., 0])
        for x0, y0, x1, y1 in self.holes:
            inside = (points[..., 0] > x0) & (points[..., 0] < x1)
            inside &= (points[..., 1] > y0) & (points[..., 1] < y1)
            height = np.where(inside, height - 1.0, height)
        return height

    def solid(self, x, y, grown=0.0):
        """Whether something stands at places, or within `grown` of them."""
        occupied = np.zeros(np.shape(x), bool)
        plans = [(*low[:2], *high[:2]) for low, high in self.boxes] + list(self.holes)
        for x0, y0, x1, y1 in plans:
            beside = (x >= x0 - grown) & (x <= x1 + grown)
            occupied |= beside & (y >= y0 - grown) & (y <= y1 + grown)
        return occupied


def _box(origin, directions, low, high):
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (
            (np.subtract(low, origin)) / directions,
            np.subtract(high, origin) / directions,
        )
    enter = np.nanmax(np.minimum(first, second), axis=1)
    leave = np.nanmin(np.maximum(first, second), axis=1)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


def room(half=(3.0, 2.5), thick=0.2, height=2.4, boxes=()):
    """Four walls around the origin, and boxes."""
    x, y = half
    walls = (
        ((-x - thick, -y - thick, -0.1), (-x, y + thick, height)),
        ((x, -y - thick, -0.1), (x + thick, y + thick, height)),
        ((-x, -y - thick, -0.1), (x, -y, height)),
        ((-x, y, -0.1), (x, y + thick, height)),
    )
    return walls + tuple(boxes)


def camera(x, y, yaw, height=0.8, pitch=0.35):
    """T_world_camera (4, 4), looking along `yaw` and down by `pitch`."""
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1.0]])
    tilt = np.array(
        [[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]]
    )
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = turn @ tilt @ OPTICAL, (x, y, height)
    return T


def rays(width=80, height=60, focal=50.0):
    """Directions (H*W, 3) of the pixels in the camera, z 1."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = (u - width / 2) / focal, (v - height / 2) / focal
    return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)


def scan(world, T, noise=0.0, random=None):
    """What a camera sees, in world coordinates."""
    directions = rays() @ T[:3, :3].T
    depth = world.depth(T[:3, 3], directions)
    if noise:
        depth = depth * np.exp(noise * random.standard_normal(len(depth)))
    points = (T[:3, 3] + directions * depth[:, None])[np.isfinite(depth)]
    return Scan(T[:3, 3], points.astype(np.float32))
