"""A map as exporters see it: its connected parts, and the images that were kept for loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.io.exports.map_view import ExportNotPossible, MapView, View
from scal3r_ros.mapping.loop_records import LoopRecords
from scal3r_ros.mapping.occupancy import OccupancyGrid
from scal3r_ros.mapping.submap import PointCloud
from scal3r_ros.pipeline import save
from scal3r_ros.pipeline.floor_grid import GridRefused
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.pipeline.mapping_state import MappingState
from scal3r_ros.pipeline.refilled_floor import refilled_floor
from scal3r_ros.records import TrajectoryPose
from scal3r_ros.scratch import ScratchFolder


@dataclass(frozen=True)
class Part:
    """What is connected with each other."""

    poses: tuple[TrajectoryPose, ...]
    cloud: PointCloud

    @property
    def positions(self) -> np.ndarray:
        """(N, 3) of the cameras."""
        return np.array([p.T_map_camera[:3, 3] for p in self.poses]).reshape(-1, 3)


def connected_parts(live_map: LiveMap) -> list[Part]:
    """All connected parts with at least one pose, the one with most frames first."""
    graph = live_map.graph_view()
    part_of = dict(zip(graph.chunks, graph.parts))
    poses: dict[int, list[TrajectoryPose]] = {}
    for pose in live_map.poses():
        poses.setdefault(part_of[pose.chunk_index], []).append(pose)
    clouds = live_map.part_clouds()
    order = sorted(poses, key=lambda part: (-len(poses[part]), part))
    return [Part(tuple(poses[p]), clouds.get(p, PointCloud.empty())) for p in order]


def map_view(state: MappingState) -> MapView:
    """The largest part of a map; its images are read when they are asked for."""
    live_map, records = state.live_map, state.loops.records
    part = next(iter(connected_parts(live_map)), Part((), PointCloud.empty()))
    scales = {pose.chunk_index: live_map.chunk_scale(pose.chunk_index) for pose in part.poses}
    return MapView(
        poses=part.poses,
        cloud=part.cloud,
        voxel_size=live_map.points.voxel_size,
        metric=live_map.scale.frozen,
        axes=live_map.scale_and_level.axes,
        revision=live_map.revision,
        views=lambda: _views(part.poses, scales, records),
        grid=lambda: _grid(state),
    )


@contextmanager
def saved_map(folder: Path) -> Iterator[MappingState]:
    """A map that `~/save_map` wrote, to look at inside the block. Raises `BadMapFile`."""
    scratch = ScratchFolder("scal3r_map_")
    try:
        yield save.read_map_alone(Config(), folder, scratch.path).state
    finally:
        scratch.remove()


def _grid(state: MappingState) -> OccupancyGrid:
    """That of the live map, or of a saved one from the depth that was kept."""
    live_map = state.live_map
    own = live_map.config.grid
    floor = None if own.enabled else refilled_floor(state, replace(own, enabled=True))
    try:
        return live_map.floor_grid(floor)
    except GridRefused as refused:
        raise ExportNotPossible(f"there is no floor plan: {refused}") from refused


def _views(
    poses: tuple[TrajectoryPose, ...], scales: dict[int, float], records: LoopRecords
) -> Iterator[View]:
    """Frames whose chunk is recorded, chunk by chunk."""
    for chunk, group in groupby(poses, key=lambda pose: pose.chunk_index):
        if chunk not in records:
            continue
        there = set(records.frame_ids(chunk))
        kept = [pose for pose in group if pose.frame_id in there]
        ids = [pose.frame_id for pose in kept]
        images, intrinsics = records.frames(chunk, ids), records.image_intrinsics(chunk, ids)
        seen = records.prediction(chunk, ids)
        for i, pose in enumerate(kept):
            depth = np.where(seen.depth[i] > 0, seen.depth[i] * np.float32(scales[chunk]), np.nan)
            yield View(
                frame_id=pose.frame_id,
                stamp_ns=pose.stamp_ns,
                rgb=images[i].rgb,
                intrinsics=intrinsics[i],
                T_map_camera=pose.T_map_camera,
                depth=depth.astype(np.float32),
                depth_intrinsics=seen.intrinsics[i],
            )
