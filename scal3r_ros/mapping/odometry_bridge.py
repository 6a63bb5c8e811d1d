"""Join two chunks by external odometry when their own geometry cannot: a weak constraint."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scal3r_ros.mapping.alignment import Alignment
from scal3r_ros.mapping.pose_fit import similarity_of_poses
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import ChunkPrediction

MIN_BRIDGE_FRAMES = 3
SIGMA = np.array([0.1, 0.05, 0.1])
"""Believed standard deviation of a bridge: translation (of the distance covered), rotation (rad),
log-scale."""


def bridge_by_odometry(
    previous: ChunkPrediction, current: ChunkPrediction, T_odom_camera: Mapping[int, np.ndarray]
) -> Alignment:
    """Place `current` in `previous` by the odometry poses (4, 4) of their frames, by frame id.

    Each chunk's scale is the ratio of its own motion to the odometry's, so both must have moved.
    """
    sides = []
    for prediction in (previous, current):
        S_odom_chunk = _anchor(prediction, T_odom_camera)
        if S_odom_chunk is None:
            return Alignment(Sim3.identity(), False, "odometry", failure="odometry_without_motion")
        sides.append(S_odom_chunk)
    S = sides[0].inverse() @ sides[1]
    positions = current.T_chunk_camera[:, :3, 3]
    length = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
    sigma = SIGMA * np.array([length, 1.0, 1.0])
    spread = np.square([sigma[0]] * 3 + [sigma[1]] * 3)
    return Alignment(S, True, "odometry", sigma=sigma, covariance=np.diag(spread))


def _anchor(prediction: ChunkPrediction, T_odom_camera: Mapping[int, np.ndarray]) -> Sim3 | None:
    """S_odom_chunk from the frames with odometry; None if they hardly move."""
    known = [i for i, frame_id in enumerate(prediction.frame_ids) if frame_id in T_odom_camera]
    if len(known) < MIN_BRIDGE_FRAMES:
        return None
    chunk = prediction.T_chunk_camera[known]
    odom = np.stack([T_odom_camera[prediction.frame_ids[i]] for i in known])
    spread = [np.linalg.norm(p[:, :3, 3] - p[:, :3, 3].mean(axis=0)) for p in (chunk, odom)]
    if spread[0] < 1e-9 or spread[1] < 1e-3:
        return None
    return similarity_of_poses(odom, chunk, spread[1] / spread[0])
