"""Where on the floor a robot can drive: free, occupied, unknown (Moravec and Elfes 1985).

Every chunk has a local grid of log-odds of its own, made from what its frames saw in the map of
that time. The grid of all of them is put together where the chunks are now: a loop closure moves
the local grids and touches no cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from scal3r_ros.config import GridConfig
from scal3r_ros.mapping.floor import FloorHeights, find_floor
from scal3r_ros.mapping.sim3 import Sim3

UNKNOWN = -1
"""Of `OccupancyGrid.cells`."""
_UNSEEN = -128
_UNIT = 0.05
"""Log-odds of one step in a local grid, whose cells are small integers."""
_HIT, _FLOOR, _PASSED = 17, -12, -6
"""What one image says of a cell: something stands there, floor is there, a ray went by close above
the floor. In steps: 0.85, -0.6, -0.3."""
_LIMIT = 70
"""Log-odds beyond which a cell does not go, in steps (3.5): what was wrong can go away."""
_RAYS = 1500
"""Rays of one image that clear space."""
_BELOW = 0.05
"""So far below the floor a ray is no error of the floor's height, metres."""
_SHARE = 0.3
"""Hits that a cell needs, relative to the most of those around it."""
_NEIGHBOURS = 3
"""Cells around an obstacle's that must hold one too, itself included; fewer are noise."""
_ABOVE = 0.3
"""Rays higher above the floor than this say nothing about what stands on it, metres."""


@dataclass(frozen=True, eq=False)
class Scan:
    """What one image saw, in coordinates of its chunk."""

    origin: np.ndarray
    """(3,) camera."""
    points: np.ndarray
    """(N, 3) float32, one for each pixel that is taken."""


@dataclass(frozen=True, eq=False)
class OccupancyGrid:
    """Probabilities of places, map frame."""

    origin: np.ndarray
    """(2,) corner of the first cell, metres."""
    resolution: float
    """Edge of a cell, metres."""
    cells: np.ndarray
    """(Y, X) int8: -1 unknown, else 0 free to 100 occupied; rows along y."""


@dataclass(frozen=True, eq=False)
class LocalGrid:
    """What the images of one chunk say, in the map as it was when the first of them was added."""

    S_map_chunk: Sim3
    """Where the chunk was then."""
    low: np.ndarray
    """(2,) number of the first cell: corner over resolution."""
    steps: np.ndarray
    """(X, Y) int8 log-odds in steps, or unseen."""
    obstacles: np.ndarray
    """(N, 3) float32, what stands on the floor, one point a cell of space."""

    @property
    def nbytes(self) -> int:
        return self.steps.nbytes + self.obstacles.nbytes


class Occupancy:
    """All local grids; the oldest are dropped beyond a budget."""

    def __init__(self, config: GridConfig) -> None:
        self.config = config
        self._grids: dict[int, LocalGrid] = {}
        self.dropped = 0
        """Local grids that were given up to keep `max_megabytes`."""

    @property
    def nbytes(self) -> int:
        return sum(grid.nbytes for grid in self._grids.values())

    def add(self, chunk: int, scans: Iterable[Scan], S_map_chunk: Sim3) -> None:
        """Take what images of a chunk saw; the map must be level and in metres.

        Raises `NoFloor` if they saw no floor to stand on; then nothing is taken.
        """
        before = self._grids.get(chunk)
        S = S_map_chunk if before is None else before.S_map_chunk
        seen = [scan for scan in (_in_map(s, S, self.config) for s in scans) if len(scan.points)]
        if not seen:
            return
        points = np.concatenate([scan.points for scan in seen])
        cameras = np.stack([scan.origin for scan in seen])
        floor = find_floor(points, cameras, self.config.max_slope, self.config.max_step)
        low, steps = _room(before, cameras, self.config)
        for scan in seen:
            _vote(steps, low, scan, floor, self.config)
        height = points[:, 2] - floor.at(points[:, :2])
        standing = points[(height > self.config.min_height) & (height < self.config.max_height)]
        if before is not None:
            standing = np.concatenate([before.obstacles, standing])
        obstacles = _denoised(standing, self.config.resolution)
        self._grids[chunk] = LocalGrid(S, low, steps, obstacles)
        while self.nbytes > self.config.max_megabytes * 1e6 and len(self._grids) > 1:
            del self._grids[min(self._grids)]
            self.dropped += 1

    def grid(self, S_map_chunk: Mapping[int, Sim3], around: np.ndarray) -> OccupancyGrid:
        """All that is known, where the chunks are now, up to half of `max_size` from `around`
        (2,)."""
        size = self.config.resolution
        placed = [_Placed(g, S_map_chunk[c], size) for c, g in self._known(S_map_chunk)]
        if not placed:
            return OccupancyGrid(np.zeros(2), size, np.zeros((0, 0), np.int8))
        half = self.config.max_size / 2.0
        corners = np.concatenate([item.corners for item in placed])
        first = np.floor(np.maximum(corners.min(axis=0), around - half) / size).astype(int)
        last = np.ceil(np.minimum(corners.max(axis=0), around + half) / size).astype(int)
        total = np.zeros(np.maximum(last - first, 0), np.int32)
        known = np.zeros(total.shape, bool)
        for item in placed:
            item.add_to(total, known, first)
        odds = np.clip(total, -_LIMIT, _LIMIT) * _UNIT
        percent = np.rint(100.0 / (1.0 + np.exp(-odds)))
        cells = np.where(known, percent, UNKNOWN).astype(np.int8)
        return OccupancyGrid(first * size, size, np.ascontiguousarray(cells.T))

    def obstacles(self, S_map_chunk: Mapping[int, Sim3], around: np.ndarray) -> np.ndarray:
        """Points (N, 3) float32 that stand on the floor within `obstacle_range` of `around` (2,),
        from the newest chunks."""
        points = [np.zeros((0, 3))]
        for chunk, grid in self._known(S_map_chunk)[-self.config.obstacle_chunks :]:
            moved = S_map_chunk[chunk] @ grid.S_map_chunk.inverse()
            points.append(moved.apply(grid.obstacles))
        joined = np.concatenate(points)
        near = np.linalg.norm(joined[:, :2] - around, axis=1) <= self.config.obstacle_range
        return joined[near].astype(np.float32)

    def _known(self, S_map_chunk: Mapping[int, Sim3]) -> list[tuple[int, LocalGrid]]:
        return [(c, self._grids[c]) for c in sorted(self._grids) if c in S_map_chunk]


class _Placed:
    """A local grid where its chunk is now: p' = turn @ p + shift, the level part of the motion."""

    def __init__(self, grid: LocalGrid, S_map_chunk: Sim3, size: float) -> None:
        self._grid, self._size = grid, size
        moved = S_map_chunk @ grid.S_map_chunk.inverse()
        R = moved.rotation
        heading = np.arctan2(R[1, 0] - R[0, 1], R[0, 0] + R[1, 1])
        cosine, sine = np.cos(heading), np.sin(heading)
        self._turn = float(moved.scale) * np.array([[cosine, -sine], [sine, cosine]])
        camera = grid.S_map_chunk.apply(np.zeros((1, 3)))
        self._shift = moved.apply(camera)[0, :2] - self._turn @ camera[0, :2]

    @property
    def corners(self) -> np.ndarray:
        """(4, 2) in the map as it is now."""
        low, high = self._grid.low, self._grid.low + self._grid.steps.shape
        corners = np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])])
        return corners * self._size @ self._turn.T + self._shift

    def add_to(self, total: np.ndarray, known: np.ndarray, start: np.ndarray) -> None:
        """Add to every cell of a larger grid, whose first cell is `start`, what this one says of
        its centre."""
        corners = self.corners / self._size
        first = np.maximum(np.floor(corners.min(axis=0)).astype(int) - start, 0)
        last = np.minimum(np.ceil(corners.max(axis=0)).astype(int) - start, total.shape)
        if (last <= first).any():
            return
        x, y = (np.arange(a, b) for a, b in zip(first, last))
        centres = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1) + start + 0.5
        back = (centres * self._size - self._shift) @ np.linalg.inv(self._turn).T
        cells = np.floor(back / self._size).astype(int) - self._grid.low
        inside = ((cells >= 0) & (cells < self._grid.steps.shape)).all(axis=-1)
        steps = np.full(inside.shape, _UNSEEN, np.int32)
        steps[inside] = self._grid.steps[tuple(cells[inside].T)]
        seen = steps != _UNSEEN
        part = np.s_[first[0] : last[0], first[1] : last[1]]
        total[part] += np.where(seen, steps, 0)
        known[part] |= seen


def _in_map(scan: Scan, S_map_chunk: Sim3, config: GridConfig) -> Scan:
    """In the map, without what is too far away."""
    origin = S_map_chunk.apply(np.asarray(scan.origin, np.float64)[None])[0]
    points = S_map_chunk.apply(np.asarray(scan.points, np.float64))
    near = np.linalg.norm(points[:, :2] - origin[:2], axis=1) <= config.max_range
    return Scan(origin, points[near])


def _room(
    before: LocalGrid | None, cameras: np.ndarray, config: GridConfig
) -> tuple[np.ndarray, np.ndarray]:
    """First cell and steps of a local grid that holds all that `cameras` can see, and what an
    earlier one knows."""
    size, reach = config.resolution, config.max_range
    low = np.floor((cameras[:, :2].min(axis=0) - reach) / size).astype(int) - 1
    high = np.ceil((cameras[:, :2].max(axis=0) + reach) / size).astype(int) + 1
    if before is not None:
        low = np.minimum(low, before.low)
        high = np.maximum(high, before.low + before.steps.shape)
    steps = np.full(high - low, _UNSEEN, np.int8)
    if before is not None:
        start = before.low - low
        end = start + before.steps.shape
        steps[start[0] : end[0], start[1] : end[1]] = before.steps
    return low, steps


def _vote(
    steps: np.ndarray, low: np.ndarray, scan: Scan, floor: FloorHeights, config: GridConfig
) -> None:
    """What one image says, in place. Of a cell that it says several things of, the worst counts."""
    height = scan.points[:, 2] - floor.at(scan.points[:, :2])
    standing = (height > config.min_height) & (height < config.max_height)
    missing = height < -config.max_drop
    level = np.abs(height) < config.min_height
    passed, fallen = _rays(scan, floor, config)
    votes = np.zeros(steps.shape, np.int8)
    for places, vote, least in (
        (passed, _PASSED, 1),
        (scan.points[level, :2], _FLOOR, 1),
        (np.concatenate([fallen, scan.points[missing, :2]]), _HIT, 3),
    ):
        votes[_counts(places, low, steps.shape, config.resolution) >= least] = vote
    hits = _counts(scan.points[standing, :2], low, steps.shape, config.resolution)
    # Beside a wall lie a few of its points, by noise of their depth: they are no wall.
    most = ndimage.maximum_filter(hits, size=3)
    standing_there = hits >= 2
    votes[standing_there & (votes == _PASSED)] = 0
    votes[standing_there & (hits >= _SHARE * most)] = _HIT
    told = votes != 0
    known = np.where(steps == _UNSEEN, 0, steps.astype(np.int16))
    steps[told] = np.clip(known + votes, -_LIMIT, _LIMIT)[told]


def _counts(places: np.ndarray, low: np.ndarray, shape: tuple[int, ...], size: float) -> np.ndarray:
    """How many places (N, 2) lie in each cell (X, Y)."""
    cells = np.floor(places / size).astype(int) - low
    keys = cells[:, 0] * shape[1] + cells[:, 1]
    return np.bincount(keys, minlength=shape[0] * shape[1]).reshape(shape)


def _rays(scan: Scan, floor: FloorHeights, config: GridConfig) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 2) that rays passed close above the floor, and places (M, 2) where rays that end
    in a hole were below it, so that there is none."""
    ends = scan.points[:: max(1, len(scan.points) // _RAYS)]
    rays = ends - scan.origin
    length = np.linalg.norm(rays[:, :2], axis=1)
    # The last cells before a surface may be the surface's own.
    count = np.maximum((length / config.resolution).astype(int) - 2, 0)
    ray = np.repeat(np.arange(len(rays)), count)
    number = np.arange(len(ray)) - np.repeat(np.cumsum(count) - count, count)
    share = (number + 0.5) * config.resolution / length[ray]
    along = scan.origin + rays[ray] * share[:, None]
    height = along[:, 2] - floor.at(along[:, :2])
    close = (height > 0) & (height < min(_ABOVE, config.max_height))
    into_hole = ends[:, 2] - floor.at(ends[:, :2]) < -config.max_drop
    fallen = into_hole[ray] & (height < -_BELOW)
    return along[close, :2], along[fallen, :2]


def _denoised(points: np.ndarray, size: float) -> np.ndarray:
    """One point (N, 3) float32 a cell of space, without those that have hardly a neighbour."""
    cells, first = np.unique(np.floor(points / size).astype(int), axis=0, return_index=True)
    if not len(cells):
        return np.zeros((0, 3), np.float32)
    tree = cKDTree(cells)
    around = tree.query_ball_point(cells, 2.0, return_length=True)
    return points[first[around > _NEIGHBOURS]].astype(np.float32)
