"""Where sensors are mounted, from the /tf_static of a bag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.io.source import BadInput

TOPIC = "/tf_static"


class StaticTransforms:
    """A forest of frames; names without a leading slash."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, np.ndarray]] = {}

    @classmethod
    def of_bag(cls, reader: Any) -> StaticTransforms:
        """All transforms on /tf_static; the last one of a child counts."""
        forest = cls()
        connections = [c for c in reader.connections if c.topic == TOPIC]
        if not connections:
            return forest
        for connection, _, data in reader.messages(connections):
            for item in reader.deserialize(data, connection.msgtype).transforms:
                name = f"{TOPIC} {item.header.frame_id} {item.child_frame_id}"
                T = _matrix(item.transform.translation, item.transform.rotation, name)
                forest.add(item.header.frame_id, item.child_frame_id, T)
        return forest

    def add(self, parent: str, child: str, T_parent_child: np.ndarray) -> None:
        self._parents[_bare(child)] = (_bare(parent), T_parent_child)

    def lookup(self, target: str, source: str) -> np.ndarray | None:
        """T_target_source (4, 4); None if nothing connects them."""
        T_target, T_source = self._to_ancestors(target), self._to_ancestors(source)
        for name, T_name_source in T_source.items():
            if name in T_target:
                return rigid.inverse(T_target[name]) @ T_name_source
        return None

    def __str__(self) -> str:
        names = set(self._parents) | {parent for parent, _ in self._parents.values()}
        return ", ".join(sorted(names)) or "no frames"

    def _to_ancestors(self, frame: str) -> dict[str, np.ndarray]:
        """T_ancestor_frame by ancestor, nearest first, the frame itself included."""
        name, T = _bare(frame), np.eye(4)
        found = {name: T}
        while name in self._parents:
            name, T_parent_child = self._parents[name]
            if name in found:
                raise BadInput(f"{TOPIC} has a cycle through {name!r}")
            T = T_parent_child @ T
            found[name] = T
        return found


def pose_matrix(pose: Any, name: str) -> np.ndarray:
    """(4, 4) of a geometry_msgs/Pose."""
    return _matrix(pose.position, pose.orientation, name)


def mount_matrix(numbers: Sequence[float]) -> np.ndarray:
    """(4, 4) of x y z qx qy qz qw."""
    return _rigid(np.array(numbers[:3]), np.array(numbers[3:]), "--camera-mount")


def _matrix(shift: Any, turn: Any, name: str) -> np.ndarray:
    quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
    return _rigid(np.array([shift.x, shift.y, shift.z]), quaternion, name)


def _rigid(position: np.ndarray, quaternion: np.ndarray, name: str) -> np.ndarray:
    norm = np.linalg.norm(quaternion)
    if not (np.isfinite(position).all() and np.isfinite(norm) and norm > 0.5):
        raise BadInput(f"{name}: no valid pose: position {position}, quaternion {quaternion}")
    return rigid.from_parts(rigid.rotation_matrix(quaternion), position)


def _bare(name: str) -> str:
    return name.lstrip("/")
