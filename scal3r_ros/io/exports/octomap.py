"""Occupied and free space as an OctoMap octree (Hornung et al. 2013), .bt and .ot files.

A tree has 16 levels; the cell of a point is the integer part of its coordinate over the resolution,
plus 2**15. Nodes are written depth first: .bt has two bits a child (unknown, free, occupied,
inner), .ot a log-odds value and one byte of children a node.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from scal3r_ros.files import write_bytes
from scal3r_ros.io.exports.map_view import ExportNotPossible, MapView, View, require_points
from scal3r_ros.mapping.camera import unproject

LEVELS = 16
_HALF = 1 << (LEVELS - 1)
_OCCUPIED, _FREE = 0.85, -0.4
"""Log-odds of a hit and a miss, OctoMap's defaults."""
_RAYS = 2000
"""Rays of one image that clear space."""


def write(view: MapView, folder: Path) -> list[Path]:
    """`map.bt`."""
    keys, occupied = cells(view)
    levels = _tree(keys, occupied)
    head = _head("binary file", levels, view.resolution)
    return [_save(folder / "map.bt", head + _binary_nodes(levels))]


def write_full(view: MapView, folder: Path) -> list[Path]:
    """`map.ot`."""
    keys, occupied = cells(view)
    levels = _tree(keys, occupied)
    return [_save(folder / "map.ot", _head("file", levels, view.resolution) + _full_nodes(levels))]


def cells(view: MapView) -> tuple[np.ndarray, np.ndarray]:
    """Keys (N, 3) of all known cells and whether they are occupied (N,): those with points are,
    those that a ray from a camera passed on its way are free."""
    require_points(view)
    filled = np.unique(_keys(view.cloud.points, view.resolution))
    passed = [_passed(item, view.resolution) for item in view.views()]
    free = np.setdiff1d(np.unique(np.concatenate([np.zeros(0, np.int64), *passed])), filled)
    codes = np.concatenate([filled, free])
    occupied = np.arange(len(codes)) < len(filled)
    order = np.argsort(codes)
    return codes[order], occupied[order]


def _passed(item: View, resolution: float) -> np.ndarray:
    """Codes of cells between a camera and what it sees, without the last ones before the surface,
    which may be its own."""
    step = max(1, int(np.sqrt(item.depth.size / _RAYS)))
    K, T = item.depth_intrinsics[None], item.T_map_camera[None]
    ends = unproject(item.depth[None], K, T, step).reshape(-1, 3)
    ends = ends[np.isfinite(ends).all(axis=1)].astype(np.float64)
    origin = item.T_map_camera[:3, 3]
    rays = ends - origin
    length = np.linalg.norm(rays, axis=1)
    count = int(np.max(length, initial=0.0) / resolution)
    found = []
    for index in range(count):
        near = length > (index + 2) * resolution
        along = origin + rays[near] * ((index + 0.5) * resolution / length[near, None])
        found.append(np.unique(_keys(along, resolution)))
    return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))


def _keys(points: np.ndarray, resolution: float) -> np.ndarray:
    """Morton codes (N,) of the cells of points (N, 3): three bits a level, x lowest."""
    key = np.floor(points.astype(np.float64) / resolution).astype(np.int64) + _HALF
    if len(key) and not (0 <= key.min() and key.max() < 2 * _HALF):
        raise ExportNotPossible(
            f"the map reaches further than {_HALF * resolution:g} from its origin, where an "
            f"OctoMap of cells of {resolution:g} ends"
        )
    code = np.zeros(len(key), np.int64)
    for bit in range(LEVELS):
        for axis in range(3):
            code |= ((key[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code


Level = tuple[np.ndarray, np.ndarray]
"""Codes (N,) of the nodes of a level in order, and whether anything in them is occupied (N,)."""


def _tree(codes: np.ndarray, occupied: np.ndarray) -> list[Level]:
    """Levels from the root to the cells."""
    levels = [(codes, occupied)]
    for _ in range(LEVELS):
        below, full = levels[0]
        parents, first = np.unique(below >> 3, return_index=True)
        levels.insert(0, (parents, np.logical_or.reduceat(full, first)))
    return levels


def _children(levels: list[Level], depth: int) -> list[tuple[int, int]]:
    """For each node of a level, where its children begin and end in the next one."""
    codes, below = levels[depth][0], levels[depth + 1][0]
    starts, ends = (np.searchsorted(below, edge << 3) for edge in (codes, codes + 1))
    return list(zip(starts.tolist(), ends.tolist()))


def _depth_first(levels: list[Level]) -> list[tuple[int, int, int, int]]:
    """Depth, index, first and last child of every node, parents before children."""
    spans = [_children(levels, depth) for depth in range(LEVELS)]
    order, waiting = [], [(0, 0)]
    while waiting:
        depth, index = waiting.pop()
        start, end = spans[depth][index] if depth < LEVELS else (0, 0)
        order.append((depth, index, start, end))
        waiting.extend((depth + 1, child) for child in range(end - 1, start - 1, -1))
    return order


def _binary_nodes(levels: list[Level]) -> bytes:
    """Two bytes an inner node: two bits a child, 10 free, 01 occupied, 11 inner (lower bit
    first)."""
    codes, full = [c.tolist() for c, _ in levels], [f.tolist() for _, f in levels]
    parts = bytearray()
    for depth, _, start, end in _depth_first(levels):
        if depth == LEVELS:
            continue
        bits = 0
        for child in range(start, end):
            state = 3 if depth + 1 < LEVELS else (2 if full[depth + 1][child] else 1)
            bits |= state << (2 * (codes[depth + 1][child] & 7))
        parts += struct.pack("<H", bits)
    return bytes(parts)


def _full_nodes(levels: list[Level]) -> bytes:
    """Log-odds (the largest of what is inside) and one bit a child."""
    codes, full = [c.tolist() for c, _ in levels], [f.tolist() for _, f in levels]
    parts = bytearray()
    for depth, index, start, end in _depth_first(levels):
        bits = 0
        for child in range(start, end):
            bits |= 1 << (codes[depth + 1][child] & 7)
        value = _OCCUPIED if full[depth][index] else _FREE
        parts += struct.pack("<fB", value, bits)
    return bytes(parts)


def _head(kind: str, levels: list[Level], resolution: float) -> bytes:
    size = sum(len(codes) for codes, _ in levels)
    return f"# Octomap OcTree {kind}\nid OcTree\nsize {size}\nres {resolution:g}\ndata\n".encode()


def _save(path: Path, data: bytes) -> Path:
    write_bytes(path, data)
    return path
