"""Decides, on the worker's thread, what is published after each of its steps; takes the snapshots.

Poses and new points leave at once. The whole map leaves when it was corrected or replaced, when it
has grown enough, or when somebody listens, but not more often than `publish.map_interval`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.mapping.worker import Output
from scal3r_ros.nodes.output.publisher import DepthView, MapPublisher, Publication
from scal3r_ros.records import ChunkPrediction, MapUpdate


class OutputPlanner:
    """Call it with every `Output` of the worker."""

    def __init__(
        self,
        config: NodeConfig,
        publisher: MapPublisher,
        camera_frame: Callable[[], str],
        last_prediction: Callable[[], ChunkPrediction | None],
        map_listeners: Callable[[], int],
    ) -> None:
        self.config = config
        self._publisher = publisher
        self._camera_frame = camera_frame
        self._last_prediction = last_prediction
        self._map_listeners = map_listeners
        self._published = (-1, 0)
        """Revision and size of the map last published."""
        self._published_at = 0.0

    def __call__(self, output: Output) -> None:
        mapper = output.mapper
        with_cloud = self._map_due(output)
        if not (output.updates or output.replaced or with_cloud):
            return
        changed = bool(output.updates) or output.replaced
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
                trajectory=mapper.trajectory(),
                cloud=None if cloud is None else (cloud.points, cloud.colors, cloud.confidence),
                graph=graph_arrays(mapper) if changed and self.config.publish.graph else None,
                depth=self._depth(mapper, output.updates),
                replaced=output.replaced,
                connected=_newest_is_connected(mapper),
            )
        )

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
        return DepthView(stamps[newest], depth.astype(np.float32), prediction.intrinsics[-1])


def _newest_is_connected(mapper: Any) -> bool:
    """Whether the newest chunk hangs together with the one that holds the map's origin."""
    parts = mapper.graph().parts
    return not parts or parts[-1] == parts[0]


def graph_arrays(mapper: Any) -> tuple[np.ndarray, list, list]:
    """Node positions (N, 3), chain edges and loop edges as pairs of positions."""
    graph = mapper.graph()
    where = dict(zip(graph.chunks, graph.positions))
    chain: list = []
    loops: list = []
    for a, b, kind in graph.edges:
        (loops if kind == "loop" else chain).append((where[a], where[b]))
    return np.asarray(graph.positions, dtype=np.float64).reshape(-1, 3), chain, loops
