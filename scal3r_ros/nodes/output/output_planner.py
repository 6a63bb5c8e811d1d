"""Decides, on the worker's thread, what is published after each of its steps; takes the snapshots.

Poses and new points leave at once. The whole map leaves when it was corrected or replaced, when it
has grown enough, or when somebody listens, but not more often than `publish.map_interval`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from scal3r_ros.mapping.pose_graph import CHAIN
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.mapping.worker import Output
from scal3r_ros.nodes.output.floor_output import FloorView
from scal3r_ros.nodes.output.publisher import DepthView, MapPublisher, Publication
from scal3r_ros.records import ChunkPrediction, MapUpdate, TrajectoryPose

MOST_MARKS = 1000
"""Nodes, edges and loops of the graph that are drawn."""


class OutputPlanner:
    """Call it with every `Output` of the worker."""

    def __init__(
        self,
        config: NodeConfig,
        publisher: MapPublisher,
        camera_frame: Callable[[], str],
        last_prediction: Callable[[], ChunkPrediction | None],
        map_listeners: Callable[[], int],
        look_at_floor: Callable[[Any], FloorView | None],
    ) -> None:
        self.config = config
        self._publisher = publisher
        self._camera_frame = camera_frame
        self._last_prediction = last_prediction
        self._map_listeners = map_listeners
        self._look_at_floor = look_at_floor
        self._published = (-1, 0)
        """Revision and size of the map last published."""
        self._published_at = self._graph_at = self._floor_at = 0.0

    def __call__(self, output: Output) -> None:
        mapper = output.mapper
        with_cloud = self._map_due(output)
        if not (output.updates or output.replaced or with_cloud):
            return
        cloud = None
        if with_cloud:
            cloud = mapper.cloud(self.config.publish.map_points)
            self._published = (mapper.map_revision, mapper.points_count)
            self._published_at = time.monotonic()
        self._publisher.put(
            Publication(
                map_revision=mapper.map_revision,
                updates=output.updates,
                camera_frame=self._camera_frame(),
                trajectory=self._path(output),
                cloud=None if cloud is None else (cloud.points, cloud.colors, cloud.confidence),
                graph=graph_arrays(mapper) if self._graph_due(output) else None,
                floor=self._floor_view(output),
                depth=self._depth(mapper, output.updates),
                replaced=output.replaced,
                connected=mapper.connected,
                whereabouts=mapper.whereabouts,
            )
        )

    def _path(self, output: Output) -> tuple[TrajectoryPose, ...]:
        """The newest poses, so that a long run costs no more than a short one; all of them when
        nothing more is to come soon."""
        if (output.final or output.replaced) and output.mapper.whereabouts is None:
            return output.mapper.trajectory()
        return output.mapper.newest_poses(self.config.publish.path_poses)

    def _graph_due(self, output: Output) -> bool:
        """With every correction, otherwise no more often than the map: it is sent as a whole."""
        if not (self.config.publish.graph and (output.updates or output.replaced)):
            return False
        at_once = output.final or output.replaced or any(u.corrected for u in output.updates)
        now = time.monotonic()
        if not at_once and now - self._graph_at < self.config.publish.map_interval:
            return False
        self._graph_at = now
        return True

    def _floor_view(self, output: Output) -> FloorView | None:
        """With every correction, otherwise no more often than the map."""
        if not (self.config.grid.enabled and (output.updates or output.replaced)):
            return None
        at_once = output.final or output.replaced or any(u.corrected for u in output.updates)
        now = time.monotonic()
        if not at_once and now - self._floor_at < self.config.publish.map_interval:
            return None
        self._floor_at = now
        return self._look_at_floor(output.mapper)

    def _map_due(self, output: Output) -> bool:
        revision, size = self._published
        now = (output.mapper.map_revision, output.mapper.points_count)
        if output.replaced:
            return True
        if now == (revision, size):
            return False
        if output.final or any(update.corrected for update in output.updates):
            return True
        if time.monotonic() - self._published_at < self.config.publish.map_interval:
            return False
        grown = now[1] - size >= self.config.publish.map_growth * max(size, 1)
        return grown or self._map_listeners() > 0

    def _depth(self, mapper: Any, updates: tuple[MapUpdate, ...]) -> DepthView | None:
        """Depth of the newest frame, scaled to the map."""
        prediction = self._last_prediction()
        if not (self.config.publish.depth and updates and prediction is not None):
            return None
        stamps = {pose.frame_id: pose.stamp_ns for pose in updates[-1].poses}
        newest = prediction.frame_ids[-1]
        if newest not in stamps:
            return None
        scale = mapper.chunk_scale(prediction.chunk_index)
        depth = np.where(prediction.depth[-1] > 0, prediction.depth[-1] * scale, np.nan)
        confidence = np.where(np.isnan(depth), 0.0, prediction.confidence[-1])
        return DepthView(
            stamps[newest],
            depth.astype(np.float32),
            confidence.astype(np.float32),
            prediction.intrinsics[-1],
        )


def graph_arrays(mapper: Any) -> tuple[np.ndarray, list, list]:
    """Node positions (N, 3), chain edges and loop edges as pairs of positions; of a long run every
    n-th node and edge, and the newest loops, so that the message does not grow with it."""
    graph = mapper.graph()
    where = dict(zip(graph.chunks, graph.positions))
    ends: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for a, b, kind in graph.edges:
        if kind in (*CHAIN, "loop"):  # the others lie along the chain
            ends[kind == "loop"].append((a, b))
    step = -(-len(graph.chunks) // MOST_MARKS) or 1
    chain, loops = ends[False][::step], ends[True][-MOST_MARKS:]
    positions = np.asarray(graph.positions, dtype=np.float64).reshape(-1, 3)[::step]
    drawn = [[(where[a], where[b]) for a, b in edges] for edges in (chain, loops)]
    return positions, drawn[0], drawn[1]
