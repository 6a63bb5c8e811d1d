"""Everything known about the map so far: what is measured, where it is, and how to look at it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.mapping.map_quality import MapQuality
from scal3r_ros.mapping.occupancy import OccupancyGrid
from scal3r_ros.mapping.point_map import PointMap
from scal3r_ros.mapping.pose_graph import PoseGraph
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.submap import PointCloud, joined_cloud
from scal3r_ros.mapping.trajectory import Trajectory
from scal3r_ros.pipeline.floor_grid import FloorGrid
from scal3r_ros.pipeline.map_change import GraphView, MapChange, OpenChunk
from scal3r_ros.pipeline.scale_and_level import ScaleAndLevel
from scal3r_ros.records import Event, ScaleEstimate, TrajectoryPose


class LiveMap:
    """Pose graph, trajectory and points, consistent with each other at any time."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.graph = PoseGraph()
        self.trajectory = Trajectory()
        self.points = PointMap(config.map)
        self.quality = MapQuality()
        self.scale_and_level = ScaleAndLevel(config.scale, config.map)
        self.floor = FloorGrid(config.grid, config.map)
        self.part = 0
        """Number of the chain of aligned chunks that is being built."""
        self.revision = 0
        self.open: OpenChunk | None = None
        self._told: dict[int, tuple[Sim3, np.ndarray] | None] = {}
        """Place and covariance by which the poses of each chunk were told last; None if not all of
        them by the same."""

    def emptied(self) -> LiveMap:
        """An empty map with the same revision and the same measurements from outside."""
        fresh = LiveMap(self.config)
        fresh.scale_and_level, fresh.revision = self.scale_and_level.restarted(), self.revision
        return fresh

    def correct(self) -> None:
        """Optimise the graph and move everything with it, as one revision."""
        self.graph.solve(self.config.graph)
        self.points.move(self.graph.nodes)
        self.revision += 1

    def correct_if_due(self, last: bool = False) -> bool:
        """Optimise the graph if loops call for it; all that wait are heard at `last`."""
        due = self.graph.due(self.config.graph) or (last and bool(self.graph.pending))
        if due:
            self.correct()
        return due

    def fuse_repeats(self) -> None:
        """Places that were seen again do not fill the map, where that is known for certain."""
        self.points.fuse_repeats(self.graph.tied)

    def fix_scale(self) -> bool:
        """Rescale the map once, when its scale is known well enough, as one revision."""
        scale = self.scale_and_level.scale
        if not scale.ready:
            return False
        self._rescale(scale.freeze().applied)
        return True

    def take_metres_of(self, older: LiveMap) -> bool:
        """Be in metres as the map that this one replaces: its measurements may be gone, but the
        cameras are where they were. False if that one was not in metres either."""
        here, there = self._connected_frames(), older._connected_frames()
        shared = sorted(here & there)
        if not older.scale.frozen or len(shared) < 2:
            return False
        spreads = []
        for live_map in (older, self):
            positions = live_map.trajectory.matrices(live_map.graph.nodes, shared)[:, :3, 3]
            spreads.append(np.linalg.norm(positions - positions.mean(axis=0)))
        applied = float(spreads[0] / spreads[1])
        self.scale_and_level.scale.estimate = replace(older.scale, applied=applied)
        self._rescale(applied)
        return True

    def _rescale(self, applied: float) -> None:
        S_metric_map = Sim3(np.array(applied), np.eye(3), np.zeros(3))
        self.graph.transform(S_metric_map)
        self.points.transform(S_metric_map)
        self.revision += 1

    def _connected_frames(self) -> set[int]:
        """Frames that hang together with the map's origin."""
        parts, chunk_of = self.graph.components(), self.trajectory.chunk_of
        origin = next(iter(parts.values()), None)
        return {i for i in self.trajectory.frame_ids if parts[chunk_of(i)] == origin}

    def poses(self, frame_ids: Iterable[int] | None = None) -> tuple[TrajectoryPose, ...]:
        """Poses of the given frames (default: all) in order of time."""
        return self.trajectory.poses(self.graph.nodes, frame_ids, self.graph.covariances())

    def tell_poses(self, frame_ids: Iterable[int], corrected: bool) -> tuple[TrajectoryPose, ...]:
        """Poses of the given frames and, after a correction, of all whose place or covariance is
        not as it was told, in order of time. They count as told then."""
        places, certain, told = self.graph.nodes, self.graph.covariances(), set(frame_ids)
        now = {index: (S, certain[index]) for index, S in places.items()} if corrected else {}
        changed = [i for i, state in now.items() if not _same(self._told.get(i), state)]
        told.update(self.trajectory.of_chunks(changed))
        for index in {self.trajectory.chunk_of(frame_id) for frame_id in frame_ids} - now.keys():
            state = (places[index], certain[index])
            same = index not in self._told or _same(self._told[index], state)
            self._told[index] = state if same else None
        self._told |= now
        return self.poses(sorted(told))

    def cloud_of(self, change: MapChange) -> PointCloud:
        """Points of a change at the present revision, whatever was corrected since."""
        clouds = []
        for item in change.fused:
            S_map_chunk = self.graph.nodes[item.chunk_index]
            if S_map_chunk is not item.S_map_chunk:
                S_now_then = S_map_chunk @ item.S_map_chunk.inverse()
                moved = S_now_then.apply(item.cloud.points).astype(np.float32)
                clouds.append(replace(item.cloud, points=moved))
            else:
                clouds.append(item.cloud)
        return joined_cloud(clouds)

    @property
    def scale(self) -> ScaleEstimate:
        return self.scale_and_level.scale.estimate

    def take_floor(self, floor: FloorGrid | None = None) -> list[Event]:
        """Put what was seen of the floor into the grid (the map's own, or another one), once that
        is possible."""
        taker = self.floor if floor is None else floor
        return taker.take(self.graph.nodes, self.scale_and_level.axes, self.scale)

    def floor_grid(self, floor: FloorGrid | None = None) -> OccupancyGrid:
        """Where a robot can drive, in the part of the map that holds its origin; raises
        `GridRefused`."""
        asked = self.floor if floor is None else floor
        axes, scale = self.scale_and_level.axes, self.scale
        return asked.grid(self._connected_chunks(), axes, scale, self._newest_place())

    def obstacles(self) -> np.ndarray:
        """Points (N, 3) float32 near the newest pose that stand on the floor; raises
        `GridRefused`."""
        self.floor.require(self.scale_and_level.axes, self.scale)
        return self.floor.occupancy.obstacles(self._connected_chunks(), self._newest_place())

    def map_in_earth(self) -> np.ndarray | None:
        """T_earth_map (4, 4) from satellite fixes, earth-centred; None if they do not tell, or the
        map is not level."""
        outside = self.scale_and_level
        if outside.axes not in ("assumed", "measured"):
            return None
        return outside.fixes.map_in_earth(self._connected_chunks())

    def _connected_chunks(self) -> dict[int, Sim3]:
        """Chunks that hang together with the map's origin."""
        parts = self.graph.components() if self.graph.nodes else {}
        origin = next(iter(parts.values()), None)
        return {c: S for c, S in self.graph.nodes.items() if parts[c] == origin}

    def _newest_place(self) -> np.ndarray:
        """(2,) of the newest camera."""
        newest = self.trajectory.matrices(self.graph.nodes, self.trajectory.newest(1))
        return newest[0, :2, 3] if len(newest) else np.zeros(2)

    def chunk_scale(self, chunk_index: int) -> float:
        """Map units per unit of the chunk's own coordinates."""
        return float(self.graph.nodes[chunk_index].scale)

    def part_clouds(self) -> dict[int, PointCloud]:
        """The points of each connected part, by the name that `graph_view().parts` gives it."""
        parts = self.graph.components() if self.graph.nodes else {}
        clouds: dict[int, list[PointCloud]] = {}
        for submap in self.points.submaps:
            clouds.setdefault(parts[submap.anchor], []).append(submap.cloud())
        return {part: joined_cloud(items) for part, items in clouds.items()}

    def graph_view(self) -> GraphView:
        """Nodes, edges and connected parts."""
        nodes = self.graph.nodes
        parts = self.graph.components() if nodes else {}
        return GraphView(
            tuple(nodes),
            np.array([S.translation for S in nodes.values()], np.float64).reshape(-1, 3),
            tuple((edge.a, edge.b, edge.kind) for edge in self.graph.edges),
            tuple(parts[index] for index in nodes),
        )

    def path_length(self, first_id: int, last_id: int) -> float:
        """Distance travelled between two frames, map units."""
        return self.trajectory.path_length(self.graph.nodes, first_id, last_id)


def _same(told: tuple[Sim3, np.ndarray] | None, now: tuple[Sim3, np.ndarray]) -> bool:
    """Whether place and covariance are as they were, but for rounding."""
    if told is None or told[0] is not now[0]:
        return False
    return bool(np.abs(told[1] - now[1]).max() <= 1e-9 * np.abs(now[1]).max())
