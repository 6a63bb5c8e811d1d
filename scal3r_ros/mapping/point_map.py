"""The map: submaps of a few chunks, each a voxel grid in its anchor chunk's coordinates.

A correction moves submaps as wholes and touches no point. When the byte budget is exceeded, the
oldest of the finest submaps gets voxels of twice the edge, until the budget holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from scal3r_ros.config import MapConfig
from scal3r_ros.mapping.camera import unproject_planes, valid_pixels
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.voxels import Voxels
from scal3r_ros.records import ChunkPrediction


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in the map frame."""

    points: np.ndarray
    """(N, 3) float32."""
    colors: np.ndarray
    """(N, 3) uint8."""
    confidence: np.ndarray
    """(N,) float32, summed over the observations of a point."""

    def __len__(self) -> int:
        return len(self.points)

    @staticmethod
    def empty() -> PointCloud:
        return PointCloud(
            np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32)
        )


def joined_cloud(clouds: Iterable[PointCloud]) -> PointCloud:
    """All points of several clouds."""
    full = [cloud for cloud in clouds if len(cloud)]
    if not full:
        return PointCloud.empty()
    fields = ("points", "colors", "confidence")
    return PointCloud(*(np.concatenate([getattr(c, f) for c in full]) for f in fields))


@dataclass(frozen=True, eq=False)
class Submap:
    """Fused points of a few consecutive chunks, in coordinates of the first one."""

    anchor: int
    """Chunk index whose frame the points are in."""
    session: int
    chunks: tuple[int, ...]
    S_map_anchor: Sim3
    level: int
    """The voxel edge is 2**level times the map's base voxel."""
    voxel_size: float
    """In units of the anchor chunk."""
    voxels: Voxels

    def cloud(self) -> PointCloud:
        colors = np.rint(self.voxels.colors.astype(np.float32)).astype(np.uint8)
        points = self.S_map_anchor.apply(self.voxels.points).astype(np.float32)
        return PointCloud(points, colors, self.voxels.weights)


class PointMap:
    """All submaps, under one byte budget."""

    def __init__(self, config: MapConfig) -> None:
        self.config = config
        self.voxel_size = config.voxel_size
        """Base voxel edge in map units; 0 until the first chunk has set it."""
        self._submaps: list[Submap] = []

    @property
    def submaps(self) -> tuple[Submap, ...]:
        return tuple(self._submaps)

    @property
    def nbytes(self) -> int:
        """Bytes of all points held."""
        return sum(submap.voxels.nbytes for submap in self._submaps)

    def __len__(self) -> int:
        """Number of points."""
        return sum(len(submap.voxels) for submap in self._submaps)

    def integrate(
        self,
        prediction: ChunkPrediction,
        owned_ids: Collection[int],
        S_map_chunk: Sim3,
        session: int = 0,
    ) -> PointCloud:
        """Fuse the frames of a chunk that it owns; returns the new points (voxel means) in the
        map."""
        wanted = set(owned_ids)
        owned = [i for i, frame_id in enumerate(prediction.frame_ids) if frame_id in wanted]
        keep = {i: kept for i in owned if (kept := _confident(prediction, i, self.config)).size}
        if not keep:
            return PointCloud.empty()
        if not self.voxel_size:
            typical = np.median(
                [np.median(prediction.depth[i].ravel()[k]) for i, k in keep.items()]
            )
            self.voxel_size = float(self.config.voxel_ratio * typical * S_map_chunk.scale)
        submap = self._submap_for(prediction.chunk_index, S_map_chunk, session)
        S_anchor_chunk = submap.S_map_anchor.inverse() @ S_map_chunk
        new = Voxels.bin(*_gather(prediction, keep, S_anchor_chunk), submap.voxel_size)
        self._submaps[-1] = replace(submap, voxels=submap.voxels.merge(new))
        self._keep_budget()
        return replace(submap, voxels=new).cloud()

    def move(self, S_map_chunk: Mapping[int, Sim3]) -> None:
        """Give every submap its anchor chunk's new pose."""
        self._submaps = [
            replace(submap, S_map_anchor=S_map_chunk[submap.anchor]) for submap in self._submaps
        ]

    def transform(self, S_new_old: Sim3) -> None:
        """Express the whole map in another frame; the base voxel keeps its size in the world."""
        self.voxel_size *= float(S_new_old.scale)
        self._submaps = [
            replace(submap, S_map_anchor=S_new_old @ submap.S_map_anchor)
            for submap in self._submaps
        ]

    def export(self, max_points: int | None = None) -> PointCloud:
        """All points in the map frame, evenly thinned to at most `max_points`."""
        if not len(self):
            return PointCloud.empty()
        step = 1 if max_points is None else max(1, -(-len(self) // max(max_points, 1)))
        parts = [_every(submap, step).cloud() for submap in self._submaps]
        cloud = PointCloud(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.colors for part in parts]),
            np.concatenate([part.confidence for part in parts]),
        )
        if max_points is None or len(cloud) <= max_points:
            return cloud
        return PointCloud(*(a[:max_points] for a in (cloud.points, cloud.colors, cloud.confidence)))

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays, to save and restore."""
        voxels = [submap.voxels for submap in self._submaps]
        poses = Sim3.stack([submap.S_map_anchor for submap in self._submaps])
        chunks = [submap.chunks for submap in self._submaps]
        empty = [Voxels.empty()]
        return {
            "voxel_size": np.array(self.voxel_size),
            "anchor": np.array([submap.anchor for submap in self._submaps], np.int64),
            "session": np.array([submap.session for submap in self._submaps], np.int64),
            "level": np.array([submap.level for submap in self._submaps], np.int64),
            "edge": np.array([submap.voxel_size for submap in self._submaps], np.float64),
            "chunk_count": np.array([len(c) for c in chunks], np.int64),
            "chunks": np.array([index for c in chunks for index in c], np.int64),
            "scale": np.asarray(poses.scale),
            "rotation": poses.rotation,
            "translation": poses.translation,
            "count": np.array([len(v) for v in voxels], np.int64),
            "keys": np.concatenate([v.keys for v in voxels or empty]),
            "points": np.concatenate([v.points for v in voxels or empty]),
            "colors": np.concatenate([v.colors for v in voxels or empty]),
            "weights": np.concatenate([v.weights for v in voxels or empty]),
        }

    @classmethod
    def restore(cls, config: MapConfig, arrays: Mapping[str, np.ndarray]) -> PointMap:
        """The map as it was; the configured voxel size is overruled by the saved one."""
        restored = cls(config)
        restored.voxel_size = float(arrays["voxel_size"])
        poses = Sim3(arrays["scale"], arrays["rotation"], arrays["translation"])
        rows = np.concatenate([[0], np.cumsum(arrays["count"])])
        members = np.concatenate([[0], np.cumsum(arrays["chunk_count"])])
        for i, anchor in enumerate(arrays["anchor"].tolist()):
            part = slice(rows[i], rows[i + 1])
            voxels = Voxels(
                keys=arrays["keys"][part],
                points=arrays["points"][part],
                colors=arrays["colors"][part],
                weights=arrays["weights"][part],
            )
            restored._submaps.append(
                Submap(
                    anchor=anchor,
                    session=int(arrays["session"][i]),
                    chunks=tuple(arrays["chunks"][members[i] : members[i + 1]].tolist()),
                    S_map_anchor=poses[i],
                    level=int(arrays["level"][i]),
                    voxel_size=float(arrays["edge"][i]),
                    voxels=voxels,
                )
            )
        return restored

    def _submap_for(self, chunk_index: int, S_map_chunk: Sim3, session: int) -> Submap:
        """The open submap, which a new chunk joins, or a fresh one anchored at the chunk."""
        last = self._submaps[-1] if self._submaps else None
        if last is not None and last.session == session:
            if chunk_index in last.chunks:
                return last
            if len(last.chunks) < self.config.submap_chunks:
                return replace(last, chunks=(*last.chunks, chunk_index))
        level = min((submap.level for submap in self._submaps), default=0)
        edge = self.voxel_size * 2**level / float(S_map_chunk.scale)
        fresh = Submap(
            chunk_index, session, (chunk_index,), S_map_chunk, level, edge, Voxels.empty()
        )
        self._submaps.append(fresh)
        return fresh

    def _keep_budget(self) -> None:
        limit = self.config.max_megabytes * 1e6
        while self.nbytes > limit and len(self) > 1:
            level = min(submap.level for submap in self._submaps if len(submap.voxels) > 1)
            oldest = next(
                i for i, s in enumerate(self._submaps) if s.level == level and len(s.voxels) > 1
            )
            submap, edge = self._submaps[oldest], 2.0 * self._submaps[oldest].voxel_size
            self._submaps[oldest] = replace(
                submap, level=level + 1, voxel_size=edge, voxels=submap.voxels.coarsen(edge)
            )


def _every(submap: Submap, step: int) -> Submap:
    if step == 1:
        return submap
    voxels = submap.voxels
    arrays = (voxels.keys, voxels.points, voxels.colors, voxels.weights)
    return replace(submap, voxels=Voxels(*(array[::step] for array in arrays)))


def _confident(prediction: ChunkPrediction, frame: int, config: MapConfig) -> np.ndarray:
    """Flat indices of a frame's pixels that are good enough for the map."""
    depth, confidence = prediction.depth[frame].ravel(), prediction.confidence[frame].ravel()
    valid = valid_pixels(depth, confidence)
    if not valid.any():
        return np.zeros(0, np.int64)
    least = config.confidence_ratio * float(confidence[valid].mean(dtype=np.float64))
    keep = valid & (confidence > least)
    if config.max_range > 0:
        keep &= depth <= config.max_range * np.median(depth[valid])
    return np.flatnonzero(keep)


def _gather(
    prediction: ChunkPrediction, keep: Mapping[int, np.ndarray], S_anchor_chunk: Sim3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (3, N) in the anchor's frame, colours (3, N) and weights (N,) of the kept pixels."""
    count = sum(len(kept) for kept in keep.values())
    points = np.empty((3, count), np.float32)
    colors = np.empty((3, count), np.uint8)
    weights = np.empty(count, np.float32)
    start = 0
    for frame, kept in keep.items():
        part = slice(start, start + len(kept))
        start = part.stop
        pose, intrinsics = prediction.T_chunk_camera[frame], prediction.intrinsics[frame]
        planes = unproject_planes(prediction.depth[frame], intrinsics, pose, S_anchor_chunk)
        pixels = prediction.rgb[frame].reshape(-1, 3)
        for axis in range(3):
            points[axis, part] = planes[axis].take(kept)
            colors[axis, part] = pixels[:, axis].take(kept)
        weights[part] = prediction.confidence[frame].take(kept)
    return points, colors, weights
