"""The map: submaps of a few chunks, each a voxel grid in its anchor chunk's coordinates.

A correction moves submaps as wholes and touches no point. What a later submap repeats goes over to
the earlier one. When the byte budget is exceeded, the oldest of the finest submaps gets voxels of
twice the edge, until the budget holds. No step costs more because the map has more submaps.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from scal3r_ros.config import MapConfig
from scal3r_ros.mapping.camera import unproject_planes, valid_pixels
from scal3r_ros.mapping.repeats import meet, reach, told_apart
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.submap import PointCloud, Submap
from scal3r_ros.mapping.voxels import VOXEL_BYTES, Voxels
from scal3r_ros.records import ChunkPrediction

RELATED = 0.05
"""Submaps are related if what is seen from one is off by less than this share of its distance: then
points that coincide are of one surface, and not of two places that drift has put together."""


class PointMap:
    """All submaps, under one byte budget."""

    def __init__(self, config: MapConfig) -> None:
        self.config = config
        self.voxel_size = config.voxel_size
        """Base voxel edge in map units; 0 until the first chunk has set it."""
        self._submaps: dict[int, Submap] = {}
        """By anchor, in order of age."""
        self._size = 0
        self._finest: list[tuple[int, int]] = []
        """Heap of (level, anchor) of all submaps; entries of levels that they had before stay."""
        self._alone: list[int] = []
        """Anchors of submaps that were not compared with older ones yet."""
        self._holders: dict[int, int] = {}
        """Anchor of the submap of each chunk."""

    @property
    def submaps(self) -> tuple[Submap, ...]:
        return tuple(self._submaps.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all points held."""
        return VOXEL_BYTES * self._size

    def __len__(self) -> int:
        """Number of points."""
        return self._size

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
        keep = {
            i: kept for i in owned if (kept := confident_pixels(prediction, i, self.config)).size
        }
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
        self._put(submap.holding(submap.voxels.merge(new)))
        self._keep_budget()
        return submap.holding(new).cloud()

    def fuse_repeats(self, tied: Callable[[int, float, float], Iterable[int]]) -> None:
        """Let each submap that is complete, and whose loops were tried, give to older ones what
        they have already.

        `tied(chunk, error, reach)` names the chunks whose place relative to `chunk` is known so
        well that a point at a distance of `reach` is off by less than `error`, both in map units;
        points of other chunks may show another place and are left alone.
        """
        while len(self._alone) > 2:  # the newest is growing; loops of the one before are tried
            newer = self._submaps.get(self._alone.pop(0))
            if newer is not None:
                self._fuse(newer, tied)

    def move(self, S_map_chunk: Mapping[int, Sim3]) -> None:
        """Give every submap its anchor chunk's new pose."""
        self._submaps = {
            anchor: replace(submap, S_map_anchor=S_map_chunk[anchor])
            for anchor, submap in self._submaps.items()
        }

    def transform(self, S_new_old: Sim3) -> None:
        """Express the whole map in another frame; the base voxel keeps its size in the world."""
        self.voxel_size *= float(S_new_old.scale)
        self._submaps = {
            anchor: replace(submap, S_map_anchor=S_new_old @ submap.S_map_anchor)
            for anchor, submap in self._submaps.items()
        }

    def export(self, max_points: int | None = None) -> PointCloud:
        """All points in the map frame, evenly thinned to at most `max_points`."""
        if not len(self):
            return PointCloud.empty()
        step = 1 if max_points is None else max(1, -(-len(self) // max(max_points, 1)))
        parts = [s.holding(s.voxels.of(slice(None, None, step))).cloud() for s in self.submaps]
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
        submaps = self.submaps
        voxels = [submap.voxels for submap in submaps]
        poses = Sim3.stack([submap.S_map_anchor for submap in submaps])
        chunks = [submap.chunks for submap in submaps]
        empty = [Voxels.empty()]
        return {
            "voxel_size": np.array(self.voxel_size),
            "anchor": np.array([submap.anchor for submap in submaps], np.int64),
            "session": np.array([submap.session for submap in submaps], np.int64),
            "level": np.array([submap.level for submap in submaps], np.int64),
            "edge": np.array([submap.voxel_size for submap in submaps], np.float64),
            "alone": np.array(self._alone, np.int64),
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
            restored._put(
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
        restored._alone = arrays.get("alone", arrays["anchor"][-1:]).tolist()  # not in older maps
        return restored

    def _fuse(self, newer: Submap, tied: Callable[[int, float, float], Iterable[int]]) -> None:
        far, tried = reach(newer), {newer.anchor}
        for chunk in tied(newer.anchor, RELATED * far, far):
            older = self._submaps.get(self._holders.get(chunk, newer.anchor), newer)
            if older.anchor > newer.anchor or older.anchor in tried:
                continue
            tried.add(older.anchor)
            if meet(older, newer):
                older, newer = told_apart(older, newer)
                self._put(older)
                self._put(newer)
                if not len(newer.voxels):
                    return

    def _submap_for(self, chunk_index: int, S_map_chunk: Sim3, session: int) -> Submap:
        """The open submap, which a new chunk joins, or a fresh one anchored at the chunk."""
        last = self._submaps.get(self._alone[-1]) if self._alone else None
        if last is not None and last.session == session:
            if chunk_index in last.chunks:
                return last
            if len(last.chunks) < self.config.submap_chunks:
                return replace(last, chunks=(*last.chunks, chunk_index))
        level = self._oldest_of_finest()[0] if self._finest else 0
        edge = self.voxel_size * 2**level / float(S_map_chunk.scale)
        self._alone.append(chunk_index)
        return Submap(
            chunk_index, session, (chunk_index,), S_map_chunk, level, edge, Voxels.empty()
        )

    def _put(self, submap: Submap) -> None:
        """Keep a submap as it is now, or remove it if all of its points went over to others."""
        before = self._submaps.get(submap.anchor)
        self._size += len(submap.voxels) - (len(before.voxels) if before else 0)
        self._holders.update(dict.fromkeys(submap.chunks, submap.anchor))
        if not len(submap.voxels):
            self._submaps.pop(submap.anchor, None)
            return
        self._submaps[submap.anchor] = submap
        if before is None or before.level != submap.level:
            heapq.heappush(self._finest, (submap.level, submap.anchor))

    def _oldest_of_finest(self) -> tuple[int, int]:
        """Level and anchor of the submap whose points are the first to be thinned."""
        while True:
            level, anchor = self._finest[0]
            if anchor in self._submaps and self._submaps[anchor].level == level:
                return level, anchor
            heapq.heappop(self._finest)

    def _keep_budget(self) -> None:
        limit = self.config.max_megabytes * 1e6
        while self.nbytes > limit and len(self) > len(self._submaps):
            level, anchor = self._oldest_of_finest()
            submap = self._submaps[anchor]
            edge = 2.0 * submap.voxel_size
            voxels = submap.voxels.coarsen(edge)
            self._put(replace(submap, level=level + 1, voxel_size=edge, voxels=voxels))


def confident_pixels(prediction: ChunkPrediction, frame: int, config: MapConfig) -> np.ndarray:
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
