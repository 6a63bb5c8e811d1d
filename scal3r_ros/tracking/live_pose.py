"""A published pose for every image: the tracker's, without a jump when a new submap takes over.

The jump is taken back at once and then given in at limited speed, about the camera. The covariance
grows with the time since the mapped image that poses are counted from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.records import Frame
from scal3r_ros.tracking.interface import LiveTracker, Submap, TrackerFrame

_SPEED = 0.05
"""Of giving in, per second: share of the typical depth."""
_TURN_RATE = 0.1
"""Radians per second."""
_LARGEST = (1.0, 0.5)
"""A larger correction (shares of the typical depth, radians) is a jump of the map, and published as
one."""
_SIGMA = (0.005, 0.003)
"""Standard deviation of a pose at the mapped image: share of the typical depth, radians."""
_GROWTH = (0.005, 0.003)
"""The same per second since then."""


@dataclass(frozen=True)
class LivePose:
    """Where the camera was when an image was taken; provisional until its chunk is mapped."""

    stamp_ns: int
    T_map_camera: np.ndarray
    """(4, 4) float64, rigid, map units."""
    covariance: np.ndarray
    """(6, 6) float64 in the map's axes: x y z, then rotation vector."""
    frame: TrackerFrame


class LivePoses:
    """`anchor` with every mapped chunk, `step` with every image; one thread."""

    def __init__(self, tracker: LiveTracker) -> None:
        self.tracker = tracker
        self.reset()

    def reset(self) -> None:
        """The map is another one, or the stream is."""
        self.tracker.reset()
        self._typical_depth = 1.0
        self._offset = np.eye(4)
        """What is still held back: published pose times the inverse of the tracker's."""
        self._last: tuple[int, np.ndarray] | None = None

    def leave_map(self) -> None:
        """The map is another one, the stream goes on."""
        self.tracker.leave_map()
        self._last = None

    def anchor(self, submap: Submap) -> None:
        """The newest mapped chunk."""
        self._typical_depth = submap.typical_depth
        self.tracker.anchor(submap)

    def step(self, frame: Frame) -> LivePose:
        """Pose of the next image; raises `TrackingLost`, and nothing is to be published."""
        last, self._last = self._last, None  # lost unless this step ends well
        told = self.tracker.step(frame)
        if last is None:
            self._offset = np.eye(4)
        else:
            self._hold_back()
            seconds = 1e-9 * (frame.stamp_ns - last[0])
            self._give_in(told.T_block_camera, max(seconds, 0.0))
        pose = self._offset @ told.T_block_camera
        self._last = frame.stamp_ns, pose
        age = 1e-9 * (frame.stamp_ns - self.tracker.anchored_ns)
        return LivePose(frame.stamp_ns, pose, self._covariance(age), told)

    def _hold_back(self) -> None:
        """A new submap took over: go on from the pose that was published."""
        self._offset = rigid.orthonormal(self._offset @ rigid.inverse(self.tracker.correction))

    def _give_in(self, pose: np.ndarray, seconds: float) -> None:
        """Move the published pose towards the tracker's, by what the speed limits allow."""
        published = self._offset @ pose
        distance = float(np.linalg.norm(published[:3, 3] - pose[:3, 3]))
        angle = _angle(published[:3, :3].T @ pose[:3, :3])
        jump = distance > _LARGEST[0] * self._typical_depth or angle > _LARGEST[1]
        speed = _SPEED * self._typical_depth
        share = seconds / max(distance / speed, angle / _TURN_RATE, 1e-12)
        if jump or share >= 1.0:
            self._offset = np.eye(4)
        else:
            self._offset = rigid.interpolate(published, pose, share) @ rigid.inverse(pose)

    def _covariance(self, age: float) -> np.ndarray:
        sigma = [start + growth * max(age, 0.0) for start, growth in zip(_SIGMA, _GROWTH)]
        place, turn = sigma[0] * self._typical_depth, sigma[1]
        return np.diag(np.square([place] * 3 + [turn] * 3))


def _angle(rotation: np.ndarray) -> float:
    return float(np.arccos(np.clip((np.trace(rotation) - 1.0) / 2.0, -1.0, 1.0)))
