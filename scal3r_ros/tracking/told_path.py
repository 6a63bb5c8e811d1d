"""Poses told so far, by stamp: what a chunk that comes seconds late is compared with."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.mapping.sim3 import Sim3

_LENGTH = 1200
"""Poses remembered: 40 s at 30 Hz."""
_MAX_GAP_NS = 500_000_000
"""Between poses further apart nothing is interpolated."""


class ToldPath:
    """The newest poses, in order of their stamps."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._poses: list[np.ndarray] = []

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest; -1 when there is none."""
        return self._stamps[-1] if self._stamps else -1

    def add(self, stamp_ns: int, T_map_camera: np.ndarray) -> None:
        """Append the newest."""
        self._stamps.append(stamp_ns)
        self._poses.append(T_map_camera)
        if len(self._stamps) > _LENGTH:
            del self._stamps[:-_LENGTH], self._poses[:-_LENGTH]

    def at(self, stamp_ns: int) -> np.ndarray | None:
        """(4, 4) at that time, between neighbours if need be; None where it is not known."""
        place = bisect_left(self._stamps, stamp_ns)
        if place < len(self._stamps) and self._stamps[place] == stamp_ns:
            return self._poses[place]
        if place in (0, len(self._stamps)):
            return None
        before, after = self._stamps[place - 1], self._stamps[place]
        if after - before > _MAX_GAP_NS:
            return None
        share = (stamp_ns - before) / (after - before)
        return rigid.interpolate(self._poses[place - 1], self._poses[place], share)

    def shared_with(self, stamps_ns: np.ndarray) -> dict[int, np.ndarray]:
        """Poses by position in `stamps_ns`, of those times that are known."""
        found = ((row, self.at(stamp)) for row, stamp in enumerate(stamps_ns.tolist()))
        return {row: pose for row, pose in found if pose is not None}

    def move(self, S: Sim3) -> None:
        """Tell everything in another frame."""
        self._poses = [S.move_pose(pose) for pose in self._poses]

    def state(self) -> dict[str, np.ndarray]:
        return {
            "path_stamps": np.array(self._stamps, np.int64),
            "path_poses": np.array(self._poses).reshape(-1, 4, 4),
        }

    @classmethod
    def restored(cls, state: Mapping[str, np.ndarray]) -> ToldPath:
        path = cls()
        path._stamps = state["path_stamps"].tolist()
        path._poses = list(state["path_poses"].copy())
        return path
