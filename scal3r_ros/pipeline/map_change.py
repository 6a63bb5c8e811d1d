"""What one step changes about the map, and how the map's graph looks from outside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.submap import PointCloud
from scal3r_ros.records import ChunkPrediction, ChunkSummary, Event


@dataclass(frozen=True)
class OpenChunk:
    """The newest chunk: its last frames wait for a successor that may own them."""

    summary: ChunkSummary
    prediction: ChunkPrediction
    """Of the frames that the next chunk will share."""
    waiting: tuple[int, ...]
    """Ids of the frames whose poses are provisional."""


@dataclass(frozen=True)
class FusedPoints:
    """Points that were added, and where the map had their chunk when they were."""

    chunk_index: int
    S_map_chunk: Sim3
    cloud: PointCloud


@dataclass(frozen=True)
class MapChange:
    """What joining (or closing) a chunk changed."""

    frame_ids: tuple[int, ...] = ()
    """Frames with a new or confirmed pose."""
    settled: tuple[tuple[ChunkPrediction, tuple[int, ...]], ...] = ()
    """Frames whose owner is now final, with the prediction that owns them."""
    fused: tuple[FusedPoints, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class GraphView:
    """The pose graph to look at."""

    chunks: tuple[int, ...]
    positions: np.ndarray
    """(K, 3) middle camera of each chunk, map frame."""
    edges: tuple[tuple[int, int, str], ...]
    """Chunk, chunk, kind: `sequence`, `odometry` or `loop`."""
    parts: tuple[int, ...]
    """For each chunk the connected part of the map that it belongs to, named by that part's first
    chunk."""


def merged(*parts: MapChange) -> MapChange:
    """Several changes as one."""
    return MapChange(
        tuple(sorted({i for part in parts for i in part.frame_ids})),
        tuple(item for part in parts for item in part.settled),
        tuple(item for part in parts for item in part.fused),
        tuple(event for part in parts for event in part.events),
    )
