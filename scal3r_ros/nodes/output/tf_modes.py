"""Which transform the node broadcasts, as arithmetic on rigid 4x4 matrices (REP-105).

map_to_camera: T_map_camera itself. map_to_base: T_map_base = T_map_camera @ inv(T_base_camera).
map_to_odom: T_map_odom = T_map_base @ inv(T_odom_base), all at the stamp of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from scal3r_ros import rigid
from scal3r_ros.nodes.base.node_config import TfConfig


def map_to_base(T_map_camera: np.ndarray, T_base_camera: np.ndarray) -> np.ndarray:
    """Pose of the robot's base from the pose of its camera."""
    return T_map_camera @ rigid.inverse(T_base_camera)


def map_to_odom(T_map_base: np.ndarray, T_odom_base: np.ndarray) -> np.ndarray:
    """Correction of an odometry frame; both poses at the same time."""
    return T_map_base @ rigid.inverse(T_odom_base)


def average(transforms: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Weighted mean of rigid transforms that lie close together."""
    stack = np.stack(transforms)
    weight = np.asarray(weights, dtype=np.float64)
    weight = weight / weight.sum() if weight.sum() > 0 else np.full(len(stack), 1 / len(stack))
    mean = np.eye(4)
    mean[:3, :3] = Rotation.from_matrix(stack[:, :3, :3]).mean(weight).as_matrix()
    mean[:3, 3] = weight @ stack[:, :3, 3]
    return mean


def slew(
    current: np.ndarray,
    target: np.ndarray,
    T_odom_base: np.ndarray,
    seconds: float,
    config: TfConfig,
) -> np.ndarray:
    """T_map_odom on its way from `current` to `target`, at limited speed of the robot in the map.

    The step is taken about the robot, not about the odometry's origin: far from the origin a small
    turn would otherwise be a large move. Corrections above the limits jump.
    """
    T_map_base, wanted = current @ T_odom_base, target @ T_odom_base
    shift = wanted[:3, 3] - T_map_base[:3, 3]
    turn = Rotation.from_matrix(wanted[:3, :3] @ T_map_base[:3, :3].T).as_rotvec()
    distance, angle = float(np.linalg.norm(shift)), float(np.linalg.norm(turn))
    if distance > config.max_slew_distance or angle > config.max_slew_turn:
        return target
    share = min(
        1.0,
        config.max_speed * seconds / max(distance, 1e-12),
        config.max_turn_rate * seconds / max(angle, 1e-12),
    )
    if share >= 1.0:
        return target
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_rotvec(share * turn).as_matrix() @ T_map_base[:3, :3]
    moved[:3, 3] = T_map_base[:3, 3] + share * shift
    return map_to_odom(moved, T_odom_base)


@dataclass(frozen=True)
class Edge:
    """The transform that a mode broadcasts."""

    parent: str
    child: str


def broadcast_edges(config: TfConfig, camera_frame: str) -> tuple[Edge, ...]:
    """Edges of the TF tree that this node owns."""
    if config.mode == "none":
        return ()
    if config.mode == "map_to_odom" and config.odometry == "visual":
        return (Edge(config.map, config.odom), Edge(config.odom, config.base))
    child = {
        "map_to_camera": camera_frame, "map_to_base": config.base, "map_to_odom": config.odom
    }[config.mode]  # fmt: skip
    return (Edge(config.map, child), Edge(config.map, config.visual_odom))


def other_parent(edge: Edge, parents: set[str]) -> str | None:
    """Which of the child's parents is not ours; a frame may have only one."""
    others = parents - {edge.parent}
    return min(others) if others else None
