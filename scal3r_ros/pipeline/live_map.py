"""Everything known about the map so far, and how one more chunk joins it.

A chunk is aligned with the previous one of its chain on their shared frames and becomes a node of
the pose graph. Frames that the next chunk may still take over are provisional and stay out of the
fused points. A chunk that cannot be aligned starts a part of its own, tied to the rest by a later
loop only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.mapping import gauge
from scal3r_ros.mapping.alignment import Alignment, least_covariance
from scal3r_ros.mapping.camera import valid_pixels
from scal3r_ros.mapping.chunking import split_overlap
from scal3r_ros.mapping.odometry_bridge import bridge_by_odometry
from scal3r_ros.mapping.point_map import PointCloud, PointMap, joined_cloud
from scal3r_ros.mapping.pose_graph import PoseGraph
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.trajectory import Trajectory
from scal3r_ros.pipeline.scale_and_level import ScaleAndLevel
from scal3r_ros.records import (
    ChunkPrediction,
    ChunkSummary,
    Event,
    ScaleEstimate,
    TrajectoryPose,
)
from scal3r_ros.rigid import inverse


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


class LiveMap:
    """Pose graph, trajectory and points, consistent with each other at any time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.graph = PoseGraph()
        self.trajectory = Trajectory()
        self.points = PointMap(config.map)
        self.scale_and_level = ScaleAndLevel(config.scale, config.map)
        self.part = 0
        """Number of the chain of aligned chunks that is being built."""
        self.revision = 0
        self.open: OpenChunk | None = None

    def emptied(self) -> LiveMap:
        """An empty map with the same revision and the same measurements from outside."""
        fresh = LiveMap(self._config)
        fresh.scale_and_level, fresh.revision = self.scale_and_level.restarted(), self.revision
        return fresh

    def join(self, summary: ChunkSummary, prediction: ChunkPrediction) -> MapChange:
        """Add the next chunk of the stream."""
        previous, alignment = self.open, self._align(summary, prediction)
        if previous is not None and alignment is not None and alignment.accepted:
            events = self._attach(previous.summary.index, summary, alignment)
            before = self._hand_over(previous, summary, prediction)
        else:
            before = self.close()
            events = self._start_part(summary, prediction, alignment)
        own = self._take(summary, prediction, alignment)
        events += self.scale_and_level.missed_mount(summary)
        self._observe_scale(summary, prediction)
        return merged(before, own, MapChange(events=tuple(events)))

    def confirm(self) -> MapChange:
        """The provisional frames of the open chunk are its own, whatever follows."""
        if self.open is None:
            return MapChange()
        joined = self._settle(self.open.prediction, self.open.waiting)
        self.trajectory.confirm(self.open.waiting)
        self.open = replace(self.open, waiting=())
        return joined

    def close(self) -> MapChange:
        """Confirm, and let no further chunk join the open one."""
        joined = self.confirm()
        self.open = None
        return joined

    def correct(self) -> None:
        """Optimise the graph and move everything with it, as one revision."""
        self.graph.solve(self._config.graph)
        self.points.move(self.graph.nodes)
        self.revision += 1

    def correct_if_due(self, last: bool = False) -> bool:
        """Optimise the graph if loops call for it; all that wait are heard at `last`."""
        due = self.graph.due(self._config.graph) or (last and bool(self.graph.pending))
        if due:
            self.correct()
        return due

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

    def _align(self, summary: ChunkSummary, prediction: ChunkPrediction) -> Alignment | None:
        """S_previous_chunk; None if no chunk of the chain precedes this one."""
        previous = self.open
        if previous is None or not summary.overlap_ids:
            return None
        alignment = gauge.join(previous.prediction, prediction, self._config.alignment)
        if alignment.accepted:
            return alignment
        outside = self.scale_and_level
        odometry = outside.odometry(previous.summary) | outside.odometry(summary)
        bridge = bridge_by_odometry(previous.prediction, prediction, odometry)
        return replace(bridge, attempts=alignment.attempts) if bridge.accepted else alignment

    def _attach(self, previous: int, summary: ChunkSummary, alignment: Alignment) -> list[Event]:
        S = alignment.S_previous_current
        self.graph.add_node(summary.index, self.graph.nodes[previous] @ S)
        kind = "odometry" if alignment.weak else "sequence"
        self.graph.add_edge(previous, summary.index, S, kind, alignment.sigma)
        if alignment.contradiction:
            text = (
                f"chunk {summary.index} is joined as its network says ({alignment.method}): "
                f"{alignment.contradiction}"
            )
            return [Event("gauge_disagrees", text, summary.index)]
        if not alignment.attempts:
            return []
        tried = "; ".join(alignment.attempts)
        text = f"chunk {summary.index} is joined by {alignment.method} ({tried})"
        return [Event("alignment_fallback", text, summary.index)]

    def _start_part(
        self, summary: ChunkSummary, prediction: ChunkPrediction, refused: Alignment | None
    ) -> list[Event]:
        events: list[Event] = []
        if not len(self.graph.nodes):
            S_map_chunk, events = self.scale_and_level.level(summary, prediction)
        else:
            self.part += 1
            S_map_chunk = self._continue_from_last(prediction)
            why = "no shared frames"
            if refused is not None:
                why = "; ".join(refused.attempts) or refused.failure
                events.append(
                    Event("alignment_failed", f"chunk {summary.index}: {why}", summary.index)
                )
            text = f"chunk {summary.index} starts part {self.part} of the map, unconnected: {why}"
            events.append(Event("new_part", text, summary.index))
        self.graph.add_node(summary.index, S_map_chunk)
        return events

    def _continue_from_last(self, prediction: ChunkPrediction) -> Sim3:
        """A provisional place, at the scale of the last chunk: its last frame is the same in both,
        or where this chunk begins if they share none."""
        last = self.trajectory.frame_ids[-1]
        T_map_last = self.trajectory.matrices(self.graph.nodes, [last])[0]
        S_last = self.graph.nodes[self.trajectory.chunk_of(last)]
        unit = Sim3(S_last.scale, np.eye(3), np.zeros(3))
        met = prediction.frame_ids.index(last) if last in prediction.frame_ids else 0
        T_met_chunk = inverse(prediction.T_chunk_camera[met])
        return Sim3.from_pose(T_map_last) @ unit @ Sim3.from_pose(T_met_chunk)

    def _hand_over(
        self, previous: OpenChunk, summary: ChunkSummary, prediction: ChunkPrediction
    ) -> MapChange:
        """The previous chunk keeps its half of the shared frames, or none where the memory makes
        the later chunk know more."""
        later_knows_more = prediction.gauge != "free"
        half, _ = split_overlap(
            summary.overlap_ids,
            previous.prediction.frame_ids,
            prediction.frame_ids,
            0 if later_knows_more else None,
        )
        waiting = set(previous.waiting)
        kept = tuple(i for i in half if i in waiting)
        self.trajectory.confirm(kept)
        self.open = replace(previous, waiting=tuple(sorted(waiting - set(kept))))
        return self._settle(previous.prediction, kept)

    def _take(
        self, summary: ChunkSummary, prediction: ChunkPrediction, alignment: Alignment | None
    ) -> MapChange:
        """Poses of the frames that nobody else owns; the last ones are provisional."""
        if alignment is not None and alignment.accepted:
            covariance = alignment.covariance
        else:
            covariance = least_covariance(prediction)
        taken_over = set(self.open.waiting) if self.open else set()
        ids = prediction.frame_ids
        free = tuple(i for i in ids if i not in self.trajectory or i in taken_over)
        last = summary.frame_ids[-self._config.chunk.overlap :]
        waiting = set(last) & set(free)
        for i in free:
            row = ids.index(i)
            self.trajectory.put(
                i,
                summary.stamps_ns[summary.frame_ids.index(i)],
                summary.index,
                prediction.T_chunk_camera[row],
                _confidence(prediction, row),
                i in waiting,
                covariance,
            )
        self.open = OpenChunk(summary, prediction.of_frames(last), tuple(sorted(waiting)))
        own = self._settle(prediction, tuple(i for i in free if i not in waiting))
        return replace(own, frame_ids=free)

    def _observe_scale(self, summary: ChunkSummary, prediction: ChunkPrediction) -> None:
        """Only in the first part: how long a map unit is in another one is unknown."""
        outside, parts = self.scale_and_level, self.graph.components()
        if not outside.wanted or parts[summary.index] != next(iter(self.graph.nodes)):
            return
        outside.observe(summary, prediction, self.graph.nodes[summary.index])
        last = outside.known_frame
        if last is not None and last in self.trajectory:
            first = self.trajectory.frame_ids[0]
            outside.scale.observe_path(self.path_length(first, last))

    def _settle(self, prediction: ChunkPrediction, frame_ids: Iterable[int]) -> MapChange:
        """Fuse the points of frames whose owner is final."""
        ids = tuple(frame_ids)
        S_map_chunk = self.graph.nodes[prediction.chunk_index]
        cloud = self.points.integrate(prediction, ids, S_map_chunk, self.part)
        fused = FusedPoints(prediction.chunk_index, S_map_chunk, cloud)
        return MapChange(ids, ((prediction, ids),), (fused,)) if ids else MapChange()


def _confidence(prediction: ChunkPrediction, row: int) -> float:
    """Mean confidence of a frame's valid pixels; 0 if there are none."""
    valid = valid_pixels(prediction.depth[row], prediction.confidence[row])
    return float(prediction.confidence[row][valid].mean()) if valid.any() else 0.0


def merged(*parts: MapChange) -> MapChange:
    """Several changes as one."""
    return MapChange(
        tuple(sorted({i for part in parts for i in part.frame_ids})),
        tuple(item for part in parts for item in part.settled),
        tuple(item for part in parts for item in part.fused),
        tuple(event for part in parts for event in part.events),
    )
