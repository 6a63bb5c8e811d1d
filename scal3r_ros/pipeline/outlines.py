"""What is kept and told of chunks once their images are gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scal3r_ros.mapping.point_map import PointCloud
from scal3r_ros.records import Chunk, ChunkPrediction, Event


@dataclass(frozen=True)
class ChunkOutline:
    """A chunk without its images."""

    index: int
    session: int
    frame_ids: tuple[int, ...]
    stamps_ns: tuple[int, ...]
    overlap_ids: tuple[int, ...]

    @staticmethod
    def of(chunk: Chunk) -> ChunkOutline:
        stamps = tuple(frame.stamp_ns for frame in chunk.frames)
        return ChunkOutline(chunk.index, chunk.session, chunk.frame_ids, stamps, chunk.overlap_ids)

    @staticmethod
    def read(values: Mapping[str, Any]) -> ChunkOutline:
        """From the values that `asdict` gave, after a trip through a file."""
        own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return ChunkOutline(**own)


@dataclass(frozen=True)
class OpenChunk:
    """The newest chunk: its last frames wait for a successor that may own them."""

    outline: ChunkOutline
    prediction: ChunkPrediction
    """Of the frames that the next chunk will share."""
    waiting: tuple[int, ...]
    """Ids of the frames whose poses are provisional."""


@dataclass(frozen=True)
class Joined:
    """What joining (or closing) a chunk changed."""

    frame_ids: tuple[int, ...] = ()
    """Frames with a new or confirmed pose."""
    settled: tuple[tuple[ChunkPrediction, tuple[int, ...]], ...] = ()
    """Frames whose owner is now final, with the prediction that owns them."""
    cloud: PointCloud = PointCloud.empty()
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


def merged(*parts: Joined) -> Joined:
    """Several changes as one."""
    return Joined(
        tuple(sorted({i for part in parts for i in part.frame_ids})),
        tuple(item for part in parts for item in part.settled),
        joined_cloud([part.cloud for part in parts]),
        tuple(event for part in parts for event in part.events),
    )


def joined_cloud(clouds: Iterable[PointCloud]) -> PointCloud:
    """All points of several clouds."""
    full = [cloud for cloud in clouds if len(cloud)]
    if not full:
        return PointCloud.empty()
    fields = ("points", "colors", "confidence")
    return PointCloud(*(np.concatenate([getattr(c, f) for c in full]) for f in fields))


def subset(prediction: ChunkPrediction, frame_ids: Iterable[int]) -> ChunkPrediction:
    """The prediction of some of its frames only."""
    wanted = set(frame_ids)
    rows = [i for i, frame_id in enumerate(prediction.frame_ids) if frame_id in wanted]
    descriptors, points = prediction.descriptors, prediction.points
    return replace(
        prediction,
        frame_ids=tuple(prediction.frame_ids[i] for i in rows),
        T_chunk_camera=prediction.T_chunk_camera[rows],
        intrinsics=prediction.intrinsics[rows],
        depth=prediction.depth[rows],
        confidence=prediction.confidence[rows],
        rgb=prediction.rgb[rows],
        descriptors=None if descriptors is None else descriptors[rows],
        points=None if points is None else points[rows],
    )
