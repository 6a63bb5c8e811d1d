"""Odometry synthesised from the map's poses: continuous, drifting, never revised.

Relative motions are taken inside one chunk, where neither alignment nor loop closure can move one
frame against the other, and chained. The corrections thus stay out of it. It comes with the
delay of a chunk, and is therefore no input for control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from scal3r_ros import rigid
from scal3r_ros.records import TrajectoryPose


@dataclass(frozen=True)
class OdometryStep:
    """Odometry at one frame."""

    stamp_ns: int
    T_odom_camera: np.ndarray
    """(4, 4)."""
    velocity: np.ndarray
    """(6,) float64: linear, then angular, in the camera frame, per second."""
    covariance: np.ndarray
    """(6, 6) of the pose, as the map gives it."""


class VisualOdometry:
    """Chains the poses of map updates; the first frame is at its pose in the map."""

    def __init__(self) -> None:
        self.breaks = 0
        """Times that two frames shared no chunk, so that the motion between them is unknown."""
        self.reset()

    def reset(self) -> None:
        self._last: TrajectoryPose | None = None
        self._T_odom_last = np.eye(4)

    def extend(self, poses: Sequence[TrajectoryPose], chunk_index: int) -> list[OdometryStep]:
        """Steps of the frames of chunk `chunk_index` that are newer than the last step."""
        ordered = sorted(
            (p for p in poses if p.chunk_index == chunk_index), key=lambda p: p.frame_id
        )
        known = {pose.frame_id: pose for pose in ordered}
        steps = []
        previous = None if self._last is None else known.get(self._last.frame_id)
        for pose in ordered:
            if self._last is not None and pose.frame_id <= self._last.frame_id:
                continue
            steps.append(self._step(previous, pose))
            previous = self._last = pose
        return steps

    def _step(self, previous: TrajectoryPose | None, pose: TrajectoryPose) -> OdometryStep:
        velocity = np.zeros(6)
        if previous is not None:
            motion = rigid.inverse(previous.T_map_camera) @ pose.T_map_camera
            self._T_odom_last = self._T_odom_last @ motion
            seconds = (pose.stamp_ns - previous.stamp_ns) * 1e-9
            turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
            if seconds > 0:
                velocity = np.concatenate([motion[:3, 3], turn]) / seconds
        elif self._last is None:
            self._T_odom_last = pose.T_map_camera
        else:
            self.breaks += 1
        return OdometryStep(pose.stamp_ns, self._T_odom_last, velocity, pose.covariance)
