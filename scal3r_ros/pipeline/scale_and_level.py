"""What the camera alone cannot know: which way is up and how long a metre is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import cv2
import numpy as np

from scal3r_ros.config import MapConfig, ScaleConfig
from scal3r_ros.io.depth_image import thinned
from scal3r_ros.mapping.imu_scale import Readings
from scal3r_ros.mapping.leveling import (
    LevelUnknown,
    fit_floor,
    map_from_chunk,
    up_from_first_camera,
    up_from_gravity,
)
from scal3r_ros.mapping.scale import ScaleEstimator, depth_ratio
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.pipeline.satellite_fixes import SatelliteFixes
from scal3r_ros.records import ChunkPrediction, ChunkSummary, Event
from scal3r_ros.rigid import PoseBuffer

_GRAVITY_WINDOW_NS = 200_000_000
_KEPT_GRAVITY = 5000
_KEPT_DEPTH = 512
_KEPT_IMU = 40_000
"""Readings: more than a minute of the fastest sensors."""
_DEPTH_WINDOW_NS = 20_000_000
"""Largest time between an image and its depth."""
_AXES = {"none": "optical", "first_camera": "assumed"}
_MOUNT_UNKNOWN = (
    "there is odometry, but where the camera is mounted on its body is unknown: no scale and no "
    "bridge comes from it; publish the transform from the base to the camera on /tf_static"
)


class ScaleAndLevel:
    """Odometry, gravity and measured depth, as they arrive, and what they say about a chunk."""

    def __init__(self, scale: ScaleConfig, map_config: MapConfig) -> None:
        self.scale = ScaleEstimator(scale)
        self.T_base_camera: np.ndarray | None = None
        """Where the camera is mounted on the body whose odometry is observed; None until somebody
        has said so, and odometry says nothing about the camera without it."""
        self.axes = "unknown"
        """What the map's third axis is: `optical` (the first camera's forward axis), `assumed` up
        (the first camera held level) or `measured` up; unknown before the first chunk."""
        self._scale_config, self._map_config = scale, map_config
        self._odometry = PoseBuffer()
        self._mount_missed = False
        self._gravity: deque[tuple[int, np.ndarray]] = deque(maxlen=_KEPT_GRAVITY)
        self._depth: deque[tuple[int, np.ndarray]] = deque(maxlen=_KEPT_DEPTH)
        self._imu: deque[tuple[int, np.ndarray]] = deque(maxlen=_KEPT_IMU)
        self.fixes = SatelliteFixes()

    def restarted(self) -> ScaleAndLevel:
        """The same measurements for a map that is built anew."""
        fresh = ScaleAndLevel(self._scale_config, self._map_config)
        fresh.T_base_camera, fresh._odometry = self.T_base_camera, self._odometry
        fresh._gravity, fresh._depth = self._gravity, self._depth
        fresh._imu, fresh.fixes = self._imu, self.fixes.restarted()
        return fresh

    def observe_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None:
        """A pose (4, 4) of the odometry, metres; stamps increase."""
        self._odometry.add(stamp_ns, T_odom_base)

    def observe_gravity(self, stamp_ns: int, up_camera: np.ndarray) -> None:
        """Accelerometer reading (3,) at rest (pointing up) in the camera's optical frame."""
        self._gravity.append((stamp_ns, np.asarray(up_camera, dtype=np.float64)))

    def observe_imu(self, stamp_ns: int, reading: np.ndarray) -> None:
        """Specific force, turn rate and place of an inertial sensor (9,), in the camera's optical
        axes; stamps increase."""
        reading = np.asarray(reading, dtype=np.float64)
        self.observe_gravity(stamp_ns, reading[:3])
        if not self._imu or stamp_ns > self._imu[-1][0]:
            self._imu.append((stamp_ns, reading))

    def observe_fix(self, stamp_ns: int, fix: np.ndarray) -> None:
        """Latitude, longitude (degrees) and altitude (m) of a satellite receiver (3,)."""
        self.fixes.add(stamp_ns, fix)

    def observe_depth(self, stamp_ns: int, metres: np.ndarray) -> None:
        """Measured depth (H, W) in metres, of the camera's image nearest in time."""
        self._depth.append((stamp_ns, thinned(metres)))

    def odometry(self, summary: ChunkSummary) -> dict[int, np.ndarray]:
        """T_odom_camera (4, 4) by frame id, for frames whose time the odometry covers; none while
        the camera's mount is unknown."""
        if self.T_base_camera is None:
            return {}
        found = {
            frame_id: self._odometry.at(stamp)
            for frame_id, stamp in zip(summary.frame_ids, summary.stamps_ns)
        }
        return {i: T @ self.T_base_camera for i, T in found.items() if T is not None}

    def missed_mount(self, summary: ChunkSummary) -> list[Event]:
        """Tells once that there is odometry for a chunk that cannot be used."""
        if self.T_base_camera is not None or self._mount_missed:
            return []
        self._mount_missed = any(self._odometry.around(ns) for ns in summary.stamps_ns)
        return [Event("mount_unknown", _MOUNT_UNKNOWN, summary.index)] * self._mount_missed

    def level(self, summary: ChunkSummary, prediction: ChunkPrediction) -> tuple[Sim3, list[Event]]:
        """S_map_chunk of the first chunk; an event if the configured way to level it failed."""
        first, events = prediction.T_chunk_camera[0], []
        try:
            up = self._up(summary, prediction)
            self.axes = _AXES.get(self._map_config.alignment, "measured")
        except LevelUnknown as unknown:
            self.axes = "assumed"
            wanted = self._map_config.alignment
            text = f"map.alignment {wanted}: {unknown}; a level first camera is assumed"
            events.append(Event("level_unknown", text, summary.index))
            up = up_from_first_camera(first)
        return map_from_chunk(first, up), events

    @property
    def wanted(self) -> bool:
        """Whether what measures metres is still to be compared with the map."""
        return bool(self._scale_config.sources) and not self.scale.estimate.frozen

    @property
    def known_frame(self) -> int | None:
        """The frame that ends a distance known to the user; None if that is not the source."""
        known = "known_distance" in self._scale_config.sources
        return self._scale_config.known_frame if known else None

    def observe(
        self, summary: ChunkSummary, prediction: ChunkPrediction, S_map_chunk: Sim3
    ) -> None:
        """Compare a chunk that was just placed with what measures metres."""
        sources = self._scale_config.sources
        stamp = dict(zip(summary.frame_ids, summary.stamps_ns))
        if "odometry" in sources:
            self._compare_odometry(summary, prediction, S_map_chunk)
        if "imu" in sources:
            self._compare_imu(stamp, prediction, S_map_chunk)
        if "camera_height" in sources:
            self._observe_floor(prediction, float(S_map_chunk.scale))
        if "depth" in sources:
            self._compare_depth(stamp, prediction, float(S_map_chunk.scale))

    def compare_fixes(self, S_map_chunk: Mapping[int, Sim3]) -> None:
        """Compare all satellite fixes with where a level map has their frames now."""
        if "gnss" in self._scale_config.sources and self.axes != "optical":
            self.scale.observe_gnss(*self.fixes.pairs(S_map_chunk))

    def contradictions(self, chunk: int) -> list[Event]:
        """Sources of the scale that contradict each other, each pair once."""
        return [Event("scale_contradiction", t, chunk) for t in self.scale.contradictions()]

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

    def _compare_odometry(
        self, summary: ChunkSummary, prediction: ChunkPrediction, S_map_chunk: Sim3
    ) -> None:
        stamp = dict(zip(summary.frame_ids, summary.stamps_ns))
        by_odometry = self.odometry(summary)
        ids = self._measured_apart([i for i in prediction.frame_ids if i in by_odometry], stamp)
        rows = [prediction.frame_ids.index(i) for i in ids]
        metres = np.array([by_odometry[i][:3, 3] for i in ids]).reshape(-1, 3)
        units = S_map_chunk.move_pose(prediction.T_chunk_camera)[rows, :3, 3]
        self.scale.observe_odometry(ids, [stamp[i] for i in ids], metres, units)

    def _compare_imu(
        self, stamp: Mapping[int, int], prediction: ChunkPrediction, S_map_chunk: Sim3
    ) -> None:
        if len(self._imu) < 2:
            return
        table = np.array([reading for _, reading in self._imu])
        readings = Readings(
            np.array([ns for ns, _ in self._imu], np.int64),
            table[:, :3], table[:, 3:6], table[-1, 6:],
        )  # fmt: skip
        stamps = [stamp[i] for i in prediction.frame_ids]
        poses = S_map_chunk.move_pose(prediction.T_chunk_camera)
        self.scale.observe_imu(prediction.frame_ids, stamps, poses, readings)

    def _measured_apart(self, frame_ids: Iterable[int], stamp: Mapping[int, int]) -> list[int]:
        """Frames of which no two were interpolated from the same pose of the odometry, whose noise
        they would share."""
        kept, used_ns = [], -1
        for frame_id in frame_ids:
            around = self._odometry.around(stamp[frame_id])
            if around is not None and around[0][0] > used_ns:
                kept.append(frame_id)
                used_ns = around[-1][0]
        return kept

    def _observe_floor(self, prediction: ChunkPrediction, scale: float) -> None:
        try:
            floor = fit_floor(prediction)
        except LevelUnknown:
            return  # this chunk shows no floor; another one may
        self.scale.observe_camera_height(floor.height * scale, floor.sigma * scale)

    def _compare_depth(
        self, stamp: dict[int, int], prediction: ChunkPrediction, scale: float
    ) -> None:
        ratios = []
        for row, frame_id in enumerate(prediction.frame_ids):
            metres = self._depth_at(stamp[frame_id])
            if metres is not None:
                size = metres.shape[::-1]
                depth = cv2.resize(prediction.depth[row], size, interpolation=cv2.INTER_NEAREST)
                ratios.append(depth_ratio(metres, depth))
        self.scale.observe_depth([ratio for ratio in ratios if ratio is not None], scale)

    def _depth_at(self, stamp_ns: int) -> np.ndarray | None:
        near = [item for item in self._depth if abs(item[0] - stamp_ns) <= _DEPTH_WINDOW_NS]
        return min(near, key=lambda item: abs(item[0] - stamp_ns))[1] if near else None
