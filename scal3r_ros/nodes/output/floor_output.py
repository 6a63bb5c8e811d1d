"""The floor for planners: `~/grid` when it has changed, `~/obstacles` at a steady rate.

A costmap takes an obstacle source for dead that falls silent, and chunks come seconds apart: so the
obstacles near the newest pose are repeated in between, with the time of the stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nav_msgs.msg import OccupancyGrid as GridMessage

from scal3r_ros.mapping.occupancy import OccupancyGrid
from scal3r_ros.nodes.base.conversions import fill, header, points_message
from scal3r_ros.nodes.output.publishers import Publishers
from scal3r_ros.pipeline.floor_grid import GridRefused


@dataclass(frozen=True)
class FloorView:
    """The floor at one revision; arrays belong to the receiver."""

    grid: OccupancyGrid
    obstacles: np.ndarray
    """(N, 3) float32, map frame."""


class FloorOutput:
    """`look` from the worker's thread, `publish` from the publisher's, `repeat` from a timer's."""

    def __init__(
        self, publishers: Publishers, map_frame: str, stream_now: Callable[[], int], logger: Any
    ) -> None:
        self.refusal = ""
        """Why there is no grid, or nothing."""
        self._publishers, self._map_frame = publishers, map_frame
        self._stream_now, self._logger = stream_now, logger
        self._lock = threading.Lock()
        self._obstacles: np.ndarray | None = None

    def look(self, mapper: Any) -> FloorView | None:
        """A snapshot; None where there is no grid, and `refusal` says why."""
        live_map = mapper.live_map
        try:
            view = FloorView(live_map.floor_grid(), live_map.obstacles())
        except GridRefused as refused:
            if self.refusal != str(refused):
                self._logger.warning(f"no ~/grid: {refused}")
            self.refusal = str(refused)
            return None
        self.refusal = ""
        return view

    def publish(self, view: FloorView, stamp_ns: int) -> None:
        """Send the grid; its obstacles are repeated from now on."""
        with self._lock:
            self._obstacles = view.obstacles
        self._publishers.grid.publish(grid_message(view.grid, self._map_frame, stamp_ns))
        self.repeat()

    def forget(self) -> None:
        """The map is another one: nothing is repeated until it has a grid."""
        with self._lock:
            self._obstacles = None

    def repeat(self) -> None:
        """Send the newest obstacles once more."""
        with self._lock:
            points = self._obstacles
        if points is not None:
            stamp_ns = self._stream_now()
            self._publishers.obstacles.publish(points_message(points, self._map_frame, stamp_ns))


def grid_message(grid: OccupancyGrid, map_frame: str, stamp_ns: int) -> GridMessage:
    """Rows along y from the origin's corner; -1 unknown, 0 free to 100 occupied."""
    message = GridMessage(header=header(map_frame, stamp_ns))
    message.info.map_load_time = message.header.stamp
    message.info.resolution = float(grid.resolution)
    message.info.height, message.info.width = grid.cells.shape
    message.info.origin.position.x = float(grid.origin[0])
    message.info.origin.position.y = float(grid.origin[1])
    message.info.origin.orientation.w = 1.0
    message.data = fill(grid.cells, "b")
    return message
