"""The occupancy grid of a live map: what its frames saw, taken once the map is level and in metres.

Until then scans wait in coordinates of their chunks, which no correction changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping

import numpy as np

from scal3r_ros.config import GridConfig, MapConfig
from scal3r_ros.mapping.camera import unproject_planes
from scal3r_ros.mapping.floor import NoFloor
from scal3r_ros.mapping.occupancy import Occupancy, OccupancyGrid, Scan
from scal3r_ros.mapping.point_map import confident_pixels
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import ChunkPrediction, Event, ScaleEstimate

_POINTS = 5000
"""Pixels of one image that are taken."""
_WAITING = 2000
"""Images whose scans wait; beyond it the oldest go."""


class GridRefused(RuntimeError):
    """There is no grid; the message says why and what to do."""


class FloorGrid:
    """Give it every frame whose owner is final; ask it for the grid."""

    def __init__(self, config: GridConfig, map_config: MapConfig) -> None:
        self.occupancy = Occupancy(config)
        self._config, self._map_config = config, map_config
        self._waiting: deque[tuple[int, tuple[Scan, ...]]] = deque()
        self._without_floor: set[int] = set()

    def note(self, prediction: ChunkPrediction, frame_ids: Collection[int]) -> None:
        """Remember what some frames of a chunk saw."""
        if not self._config.enabled:
            return
        rows = [i for i, frame_id in enumerate(prediction.frame_ids) if frame_id in frame_ids]
        scans = tuple(scan_of(prediction, row, self._map_config) for row in rows)
        if scans:
            self._waiting.append((prediction.chunk_index, scans))
        while sum(len(waiting) for _, waiting in self._waiting) > _WAITING:
            self._waiting.popleft()

    def take(self, S_map_chunk: Mapping[int, Sim3], axes: str, scale: ScaleEstimate) -> list[Event]:
        """Put what waits into the grid, if the map is level and in metres."""
        if refusal(axes, scale):
            return []
        events = []
        while self._waiting:
            chunk, scans = self._waiting.popleft()
            try:
                self.occupancy.add(chunk, scans, S_map_chunk[chunk])
            except NoFloor as reason:
                if chunk not in self._without_floor:
                    self._without_floor.add(chunk)
                    text = f"chunk {chunk} adds nothing to the grid: {reason}"
                    events.append(Event("no_floor", text, chunk))
        return events

    def grid(
        self, S_map_chunk: Mapping[int, Sim3], axes: str, scale: ScaleEstimate, around: np.ndarray
    ) -> OccupancyGrid:
        """What is known of the floor where the chunks are now; raises `GridRefused`."""
        self.require(axes, scale)
        return self.occupancy.grid(S_map_chunk, around)

    def require(self, axes: str, scale: ScaleEstimate) -> None:
        """Raise `GridRefused` if there can be no grid."""
        if not self._config.enabled:
            raise GridRefused("grid.enabled is false; set it before the map is made")
        if reason := refusal(axes, scale):
            raise GridRefused(reason)


def refusal(axes: str, scale: ScaleEstimate) -> str:
    """Why a map has no floor to drive on, or nothing."""
    reasons = []
    if axes != "measured":
        reasons.append(
            "which way is up is not measured; set map.alignment to imu (gravity) or floor"
        )
    if not scale.frozen:
        known = f"so far {scale.value:.3g} m per unit, too uncertain" if scale.known else "unknown"
        reasons.append(f"the map is not in metres ({known}); set scale.source")
    return "; ".join(reasons)


def scan_of(prediction: ChunkPrediction, row: int, config: MapConfig) -> Scan:
    """The confident pixels of one frame, evenly thinned, in coordinates of the chunk."""
    kept = confident_pixels(prediction, row, config)
    kept = kept[:: max(1, len(kept) // _POINTS)]
    pose = prediction.T_chunk_camera[row]
    planes = unproject_planes(prediction.depth[row], prediction.intrinsics[row], pose)
    points = np.stack([plane.ravel()[kept] for plane in planes], axis=1)
    return Scan(pose[:3, 3], points)
