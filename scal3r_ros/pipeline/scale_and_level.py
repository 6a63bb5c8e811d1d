"""What the camera alone cannot know: which way is up and how long a metre is."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from scal3r_ros.config import MapConfig, ScaleConfig
from scal3r_ros.mapping.leveling import (
    LevelUnknown,
    fit_floor,
    map_from_chunk,
    up_from_first_camera,
    up_from_gravity,
)
from scal3r_ros.mapping.scale import ScaleEstimator
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import ChunkPrediction, ChunkSummary, Event

_GRAVITY_WINDOW_NS = 200_000_000
_KEPT_GRAVITY = 5000
_KEPT_DEPTH = 32


class ScaleAndLevel:
    """Odometry, gravity and measured depth, as they arrive, and what they say about a chunk."""

    def __init__(self, scale: ScaleConfig, map_config: MapConfig) -> None:
        self.scale = ScaleEstimator(scale)
        self.T_base_camera = np.eye(4)
        """Where the camera is mounted on the body whose odometry is observed."""
        self._scale_config, self._map_config = scale, map_config
        self._gravity: deque[tuple[int, np.ndarray]] = deque(maxlen=_KEPT_GRAVITY)
        self._depth: deque[tuple[int, np.ndarray]] = deque(maxlen=_KEPT_DEPTH)

    def restarted(self) -> ScaleAndLevel:
        """The same measurements for a map that is built anew."""
        fresh = ScaleAndLevel(self._scale_config, self._map_config)
        fresh.scale.copy_odometry(self.scale)
        fresh.T_base_camera = self.T_base_camera
        fresh._gravity, fresh._depth = self._gravity, self._depth
        return fresh

    def observe_gravity(self, stamp_ns: int, up_camera: np.ndarray) -> None:
        """Accelerometer reading (3,) at rest (pointing up) in the camera's optical frame."""
        self._gravity.append((stamp_ns, np.asarray(up_camera, dtype=np.float64)))

    def observe_depth(self, stamp_ns: int, metres: np.ndarray) -> None:
        """Measured depth (H, W) in metres of the frame with this stamp."""
        self._depth.append((stamp_ns, metres))

    def odometry(self, summary: ChunkSummary) -> dict[int, np.ndarray]:
        """T_odom_camera (4, 4) by frame id, for frames whose time the odometry covers."""
        found = {
            frame_id: self.scale.odometry_at(stamp)
            for frame_id, stamp in zip(summary.frame_ids, summary.stamps_ns)
        }
        return {i: T @ self.T_base_camera for i, T in found.items() if T is not None}

    def level(self, summary: ChunkSummary, prediction: ChunkPrediction) -> tuple[Sim3, list[Event]]:
        """S_map_chunk of the first chunk; an event if the configured way to level it failed."""
        first, events = prediction.T_chunk_camera[0], []
        try:
            up = self._up(summary, prediction)
        except LevelUnknown as unknown:
            wanted = self._map_config.alignment
            text = f"map.alignment {wanted}: {unknown}; a level first camera is assumed"
            events.append(Event("level_unknown", text, summary.index))
            up = up_from_first_camera(first)
        return map_from_chunk(first, up), events

    @property
    def wanted(self) -> bool:
        """Whether what measures metres is still to be compared with the map."""
        return self._scale_config.source != "none" and not self.scale.estimate.frozen

    @property
    def known_frame(self) -> int | None:
        """The frame that ends a distance known to the user; None if that is not the source."""
        known = self._scale_config.source == "known_distance"
        return self._scale_config.known_frame if known else None

    def observe(
        self, summary: ChunkSummary, prediction: ChunkPrediction, S_map_chunk: Sim3
    ) -> None:
        """Compare a chunk that was just placed with what measures metres."""
        source = self._scale_config.source
        stamp = dict(zip(summary.frame_ids, summary.stamps_ns))
        if source == "odometry":
            poses = S_map_chunk.move_pose(prediction.T_chunk_camera)
            stamps = [stamp[i] for i in prediction.frame_ids]
            self.scale.observe_positions(stamps, poses[:, :3, 3], self.T_base_camera)
        elif source == "camera_height":
            self._observe_floor(prediction, float(S_map_chunk.scale))
        elif source == "depth":
            self._compare_depth(stamp, prediction, float(S_map_chunk.scale))

    def _up(self, summary: ChunkSummary, prediction: ChunkPrediction) -> np.ndarray | None:
        if self._map_config.alignment == "none":
            return None
        if self._map_config.alignment == "floor":
            return fit_floor(prediction).normal
        if self._map_config.alignment == "imu":
            return self._up_from_imu(summary, prediction)
        return up_from_first_camera(prediction.T_chunk_camera[0])

    def _up_from_imu(self, summary: ChunkSummary, prediction: ChunkPrediction) -> np.ndarray:
        stamp = dict(zip(summary.frame_ids, summary.stamps_ns))
        cameras, readings = [], []
        for frame_id, T_chunk_camera in zip(prediction.frame_ids, prediction.T_chunk_camera):
            near = [
                up for ns, up in self._gravity if abs(ns - stamp[frame_id]) < _GRAVITY_WINDOW_NS
            ]
            if near:
                cameras.append(T_chunk_camera)
                readings.append(np.mean(near, axis=0))
        return up_from_gravity(cameras, readings)

    def _observe_floor(self, prediction: ChunkPrediction, scale: float) -> None:
        try:
            floor = fit_floor(prediction)
        except LevelUnknown:
            return  # this chunk shows no floor; another one may
        self.scale.observe_camera_height(floor.height * scale, floor.sigma * scale)

    def _compare_depth(
        self, stamp: dict[int, int], prediction: ChunkPrediction, scale: float
    ) -> None:
        measured = dict(self._depth)
        for row, frame_id in enumerate(prediction.frame_ids):
            metres = measured.get(stamp[frame_id])
            if metres is not None:
                size = prediction.depth.shape[:0:-1]
                metres = cv2.resize(metres, size, interpolation=cv2.INTER_NEAREST)
                self.scale.observe_depth(metres, prediction.depth[row], scale)
