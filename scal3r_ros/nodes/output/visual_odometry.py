"""Odometry synthesised from the map's poses: continuous, drifting, never revised.

Relative motions are taken inside one chunk, where neither alignment nor loop closure can move one
frame against the other, and chained. The corrections thus stay out of it, and what they make
certain again does too: its uncertainty only grows. It comes with the delay of a chunk, and is
therefore no input for control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from scal3r_ros import rigid
from scal3r_ros.records import TrajectoryPose

UNKNOWN = 1e6
"""Variance of what nothing is known about."""


@dataclass(frozen=True)
class OdometryStep:
    """Odometry at one frame."""

    stamp_ns: int
    T_odom_camera: np.ndarray
    """(4, 4)."""
    velocity: np.ndarray
    """(6,) float64: linear, then angular, in the camera frame, per second."""
    covariance: np.ndarray
    """(6, 6) of the pose, along the axes of the odometry frame."""
    velocity_covariance: np.ndarray
    """(6, 6) of `velocity`."""


class VisualOdometry:
    """Chains the poses of map updates; the first frame is at its pose in the map."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The map is another one."""
        self._last: TrajectoryPose | None = None
        self._T_odom_last = np.eye(4)
        self._covariance = np.zeros((6, 6))
        self._applied = 1.0

    def extend(
        self, poses: Sequence[TrajectoryPose], chunk_index: int, applied: float = 1.0
    ) -> list[OdometryStep]:
        """Steps of the frames of chunk `chunk_index` that are newer than the last step; `applied`
        is what the map's coordinates were multiplied by to become metres."""
        self._follow(applied)
        ordered = sorted(
            (p for p in poses if p.chunk_index == chunk_index), key=lambda p: p.frame_id
        )
        last = self._last
        new = [p for p in ordered if last is None or p.frame_id > last.frame_id]
        if not new:
            return []
        # Errors of poses of one chunk do not add up from frame to frame, so all are measured
        # from the one where the chunk was entered.
        entry = next((p for p in ordered if last is not None and p.frame_id == last.frame_id), None)
        if entry is None:
            self._enter(new[0])
        steps, previous = [], entry
        anchor, T_odom_anchor, known = entry or new[0], self._T_odom_last, self._covariance
        for pose in new:
            motion = rigid.inverse(anchor.T_map_camera) @ pose.T_map_camera
            T_odom_camera = T_odom_anchor @ motion
            covariance = rigid.carried(known, T_odom_camera[:3, 3] - T_odom_anchor[:3, 3])
            if pose is not anchor:
                covariance = covariance + _between(anchor, pose, T_odom_anchor[:3, :3])
            velocity, its_covariance = _velocity(previous, pose)
            steps.append(
                OdometryStep(pose.stamp_ns, T_odom_camera, velocity, covariance, its_covariance)
            )
            previous = pose
        self._last, self._T_odom_last = new[-1], steps[-1].T_odom_camera
        self._covariance = steps[-1].covariance
        return steps

    def _follow(self, applied: float) -> None:
        """The map was rescaled, and so is what was travelled so far."""
        ratio = applied / self._applied
        self._applied = applied
        self._T_odom_last = self._T_odom_last.copy()
        self._T_odom_last[:3, 3] *= ratio
        units = np.repeat([ratio, 1.0], 3)
        self._covariance = units[:, None] * self._covariance * units

    def _enter(self, first: TrajectoryPose) -> None:
        """No frame is shared with what was before: odometry stands still over an unknown motion."""
        if self._last is None:
            self._T_odom_last, self._covariance = first.T_map_camera, first.covariance_in_chunk
        else:
            self._covariance = self._covariance + UNKNOWN * np.eye(6)


def _velocity(
    before: TrajectoryPose | None, after: TrajectoryPose
) -> tuple[np.ndarray, np.ndarray]:
    """Mean velocity (6,) between two frames of a chunk, in the camera frame, and its covariance."""
    seconds = 0.0 if before is None else (after.stamp_ns - before.stamp_ns) * 1e-9
    if before is None or seconds <= 0:
        return np.zeros(6), UNKNOWN * np.eye(6)
    motion = rigid.inverse(before.T_map_camera) @ after.T_map_camera
    turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
    velocity = np.concatenate([motion[:3, 3], turn]) / seconds
    return velocity, _between(before, after, np.eye(3)) / seconds**2


def _between(
    before: TrajectoryPose, after: TrajectoryPose, R_axes_before: np.ndarray
) -> np.ndarray:
    """Covariance (6, 6) of the motion between two frames of a chunk, along given axes.

    What moves the whole chunk moves both and tells nothing; an error of the first one's rotation
    swings the second one around.
    """
    lever = after.T_map_camera[:3, 3] - before.T_map_camera[:3, 3]
    in_map = rigid.carried(before.covariance_in_chunk, lever) + after.covariance_in_chunk
    return rigid.turned(in_map, R_axes_before @ before.T_map_camera[:3, :3].T)
