"""Similarity of two chunks from the camera poses that both give to the frames they share."""

from __future__ import annotations

import numpy as np

from scal3r_ros.mapping.sim3 import Sim3


def similarity_of_poses(
    T_target_camera: np.ndarray, T_source_camera: np.ndarray, scale: float
) -> Sim3:
    """S_target_source that brings the cameras (S, 4, 4) of one chunk onto those of another, at a
    known scale: mean relative rotation, mean centre."""
    target, source = T_target_camera[:, :3, 3], T_source_camera[:, :3, 3]
    turns = T_target_camera[:, :3, :3] @ np.swapaxes(T_source_camera[:, :3, :3], 1, 2)
    rotation = mean_rotation(turns)
    centre = target.mean(axis=0) - scale * rotation @ source.mean(axis=0)
    return Sim3(np.asarray(scale), rotation, centre)


def mean_rotation(rotations: np.ndarray) -> np.ndarray:
    """Chordal mean of rotations (N, 3, 3): the rotation nearest to their sum."""
    left, _, right = np.linalg.svd(rotations.sum(axis=0))
    return left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
