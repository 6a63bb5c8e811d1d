"""Feeds the page in the web browser, or the rerun viewer, from the node (`viewer.enabled`)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from scal3r_ros.io.rerun_view import RerunView
from scal3r_ros.io.view_geometry import MAX_TRAJECTORY, ViewSnapshot
from scal3r_ros.io.viewer import LiveView, ViewerMissing
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.mapping.worker import Output
from scal3r_ros.nodes.output.output_planner import graph_arrays
from scal3r_ros.records import ScaleEstimate

PERIOD = 1.0
"""Shortest time in seconds between two snapshots of the map; images are sent more often."""
IMAGE_PERIOD = 0.5


class NodeView:
    """`show` from the worker's thread, `show_status` from the executor's."""

    def __init__(self, view: LiveView | RerunView, config: NodeConfig) -> None:
        self._view, self._config = view, config
        self._shown_at = self._image_at = 0.0
        self._due = False

    def show(self, output: Output) -> None:
        """Draw what the worker has done; at most every `PERIOD`, a final state always."""
        now = time.monotonic()
        if output.frame is not None and now - self._image_at >= IMAGE_PERIOD:
            self._image_at = now
            self._view.show(image=output.frame.rgb)
        self._due |= bool(output.updates) or output.replaced
        if not self._due or (now - self._shown_at < PERIOD and not output.final):
            return
        self._shown_at, self._due = now, False
        self._view.update(self._snapshot(output))

    def show_status(self, session) -> None:
        """The table beside the map."""
        worker, counts = session.worker, session.frames.counts
        statistics = worker.statistics
        status = {
            "state": worker.reason or worker.state,
            "frames": f"{session.input.counts['received']} received, {counts['dropped']} dropped",
            "rate": f"{session.input.rate():.1f} Hz",
        }
        if worker.mapper is not None:
            scale = worker.mapper.scale
            status |= {
                "chunks": f"{len(statistics.chunk_seconds)}, last "
                f"{statistics.chunk_seconds[-1] if statistics.chunk_seconds else 0:.1f} s",
                "points": f"{worker.mapper.points_count}",
                "scale": scale_in_words(scale),
                "revision": f"{worker.mapper.map_revision}",
                "memory": self._config.memory.mode,
            }
        self._view.show(status=status)

    def close(self) -> None:
        self._view.close()

    def _snapshot(self, output: Output) -> ViewSnapshot:
        mapper = output.mapper
        cloud = mapper.cloud(self._config.viewer.max_points)
        _, _, loops = graph_arrays(mapper)
        size, focal = (640, 480), 0.0
        if output.frame is not None:
            size = output.frame.rgb.shape[1::-1]
            if output.frame.intrinsics is not None:
                focal = float(output.frame.intrinsics[0, 0])
        return ViewSnapshot(
            cloud.points,
            cloud.colors,
            mapper.spread_poses(MAX_TRAJECTORY),
            np.array(loops, dtype=np.float64).reshape(-1, 2, 3),
            (int(size[0]), int(size[1])),
            focal,
        )


def scale_in_words(scale: ScaleEstimate) -> str:
    """What a length in the map means."""
    if not scale.known:
        return "unknown"
    percent = 100.0 * np.sqrt(scale.variance) / scale.value
    unit = "metres" if scale.frozen else f"{scale.value:.3g} m per unit so far"
    return f"{unit}, +- {percent:.1f} %"


def open_view(config: NodeConfig, logger: Any) -> NodeView | None:
    """Show the map if asked to; without the library for it the node goes on without."""
    wanted = config.viewer
    if not wanted.enabled:
        return None
    z_up = config.map.alignment != "none"
    view: LiveView | RerunView
    try:
        if wanted.kind == "rerun":
            view = RerunView(wanted.rerun_url, wanted.max_points, z_up)
        else:
            up = (0.0, 0.0, 1.0) if z_up else (0.0, -1.0, 0.0)
            view = LiveView(wanted.port, wanted.max_points, wanted.max_frusta, up=up)
    except ViewerMissing as missing:
        logger.warning(f"no live view: {missing}")
        return None
    logger.info(f"live view at {view.url}")
    return NodeView(view, config)
