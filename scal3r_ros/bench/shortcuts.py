"""What two common shortcuts cost, beside what this package does, on the same simulated drive.

Overload: a worker three times too slow. The shortcut keeps the newest frames in a ring and takes
the first frames of a chunk for the last ones of the chunk before, by their position; we thin the
frames before they are in a chunk and match the overlap by frame id. Both end with the drive: what
still waits then is mapped by neither.
Loop: the shortcut corrects the path and leaves the points where they were published; we move the
submaps with it.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from scal3r_ros.bench.city import ROOF, SETBACK, City, drive
from scal3r_ros.bench.mapping import FRAMES, METRES
from scal3r_ros.bench.oracle import REALISTIC, OracleReconstructor
from scal3r_ros.config import Config, LoopConfig
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.similarity_fit import weighted_similarity
from scal3r_ros.nodes.base.node_config import QueueConfig
from scal3r_ros.nodes.input.frame_queue import FrameQueue, Ticket
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.records import Chunk, Frame

FIRST_REVISIT = 1650
"""Frames until the first lap has been closed and a street of it driven again."""
SLOWNESS = 3.0
"""Time the worker takes for a chunk, in units of the time in which its new frames are taken."""
WALLS = (2.0, ROOF - 1.0)
"""Height above the street between which a point belongs to a wall, metres."""


@dataclass(frozen=True)
class Overload:
    """What came of a drive under overload."""

    way: str
    frames_mapped: int
    chunks: int
    sharing: float
    """Share of neighbouring chunks that really have frames in common."""
    ate: float
    """RMS position error after similarity alignment, per cent of the path."""


@dataclass(frozen=True)
class LoopedMap:
    """How far wall points lie from the nearest wall after loops were closed, metres."""

    way: str
    loops: int
    points: int
    median: float
    p90: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/bench/shortcuts.json"))
    parser.add_argument("--quick", action="store_true", help="no loops: the overload part alone")


def run(args: argparse.Namespace) -> list[Overload | LoopedMap]:
    """Run both comparisons, print them and write them as JSON."""
    city = drive(FRAMES, METRES, 96, 30)
    rows: list[Overload | LoopedMap] = [ring_overload(city, 600), thinned_overload(city, 600)]
    if not args.quick:
        rows += looped_maps(city, FIRST_REVISIT)
    for row in rows:
        print("  ".join(f"{name} {_short(value)}" for name, value in asdict(row).items()))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return rows


def ring_overload(city: City, frames: int) -> Overload:
    """The shortcut: the newest frames in a ring, overlap by position."""
    config = Config().chunk
    busy = SLOWNESS * (config.size - config.overlap)
    ring: deque[int] = deque(maxlen=config.size)
    windows, free_at = [], 0.0
    for index in range(frames):
        ring.append(index)
        if index >= free_at and len(ring) == config.size:
            windows.append(tuple(ring))
            free_at = index + busy
    centres = _chained_by_position(city, windows, config.overlap)
    return _overload("ring, by position", windows, centres, city)


def thinned_overload(city: City, frames: int) -> Overload:
    """This package: the node's queue in front of the mapper."""
    oracle = _Noted(city, REALISTIC)
    mapper = Mapper(Config(loop=LoopConfig(enabled=False)), oracle)
    queue, free_at = FrameQueue(QueueConfig()), 0.0
    busy = SLOWNESS * (mapper.config.chunk.size - mapper.config.chunk.overlap)
    image = np.zeros((2, 2, 3), np.uint8)
    for index in range(frames):
        queue.put(Ticket(city.stamp_ns(index), index, image.nbytes))
        while index >= free_at and (ticket := queue.pop()):
            if mapper.add(Frame(ticket.message, ticket.stamp_ns, image)):
                free_at = index + busy
    return _overload("thinned, by id", oracle.windows, _centres(mapper), city)


def looped_maps(city: City, frames: int) -> list[LoopedMap]:
    """One drive with loops: points as they were published, and as the map holds them."""
    mapper = Mapper(Config(), OracleReconstructor(city, REALISTIC))
    published, loops = [], 0
    for index in range(frames):
        frame = Frame(index, city.stamp_ns(index), np.zeros((2, 2, 3), np.uint8))
        for update in mapper.add(frame):
            published.append(update.points)
            loops += len(update.loops)
    for update in mapper.flush():
        published.append(update.points)
    S_world_map, _ = _aligned(_centres(mapper), city)
    left = S_world_map.apply(np.concatenate(published).astype(np.float64))
    moved = S_world_map.apply(mapper.cloud().points.astype(np.float64))
    return [
        _looped_map("points left", loops, left, city),
        _looped_map("points moved", loops, moved, city),
    ]


class _Noted(OracleReconstructor):
    """Remembers which frames were in which chunk."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.windows: list[tuple[int, ...]] = []

    def reconstruct(self, chunk: Chunk, contribute: bool = True):
        self.windows.append(chunk.frame_ids)
        return super().reconstruct(chunk, contribute)


def _chained_by_position(
    city: City, windows: list[tuple[int, ...]], overlap: int
) -> dict[int, np.ndarray]:
    """Camera centres when a chunk's first frames are taken for the last of the chunk before."""
    oracle, found, last = OracleReconstructor(city, REALISTIC), {}, None
    for number, window in enumerate(windows):
        frames = tuple(Frame(i, city.stamp_ns(i), np.zeros((2, 2, 3), np.uint8)) for i in window)
        centres = oracle.reconstruct(Chunk(number, 0, frames)).T_chunk_camera[:, :3, 3]
        if last is not None:
            same = weighted_similarity(centres[:overlap], last[-overlap:], np.ones(overlap))
            centres = same.apply(centres)
        last = centres
        found.update(zip(window, centres))
    return found


def _centres(mapper: Mapper) -> dict[int, np.ndarray]:
    return {pose.frame_id: pose.T_map_camera[:3, 3] for pose in mapper.trajectory()}


def _overload(
    way: str, windows: list[tuple[int, ...]], centres: dict[int, np.ndarray], city: City
) -> Overload:
    """Score one way; the ATE is relative to the true path between the first and the last frame."""
    sharing = [bool(set(a) & set(b)) for a, b in zip(windows, windows[1:])]
    steps = np.diff(city.T_world_camera[min(centres) : max(centres) + 1, :3, 3], axis=0)
    path = float(np.linalg.norm(steps, axis=1).sum())
    _, error = _aligned(centres, city)
    share = float(np.mean(sharing))
    return Overload(way, len(centres), len(windows), share, 100.0 * error / path)


def _aligned(centres: dict[int, np.ndarray], city: City) -> tuple[Sim3, float]:
    """S_world_map that fits camera centres best, and the RMS distance that is left, metres."""
    found, true = np.array(list(centres.values())), city.T_world_camera[list(centres), :3, 3]
    S_world_map = weighted_similarity(found, true, np.ones(len(found)))
    rest = np.sum((S_world_map.apply(found) - true) ** 2, axis=1)
    return S_world_map, float(np.sqrt(np.mean(rest)))


def _looped_map(way: str, loops: int, world: np.ndarray, city: City) -> LoopedMap:
    """Distances of the wall points among `world` (N, 3), metres, from the nearest wall."""
    walls = world[(world[:, 2] > WALLS[0]) & (world[:, 2] < WALLS[1])]
    inside = np.mod(walls[:, :2], city.block)
    faces = np.minimum(np.abs(inside - SETBACK), np.abs(inside - (city.block - SETBACK)))
    median, p90 = np.quantile(faces.min(axis=1), (0.5, 0.9))
    return LoopedMap(way, loops, len(walls), float(median), float(p90))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
