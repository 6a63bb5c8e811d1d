"""One pose of a frame from those that several chunks give it (AMB3R-SLAM 2026, frame poses)."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

EDGE_WEIGHT = 0.25
"""Weight of a chunk's first and last frame; that of its middle one is 1."""


def place_weight(position: int, count: int) -> float:
    """How much a chunk of `count` frames is believed about its frame at `position`: frames in the
    middle are seen from both sides."""
    middle = (count - 1) / 2.0
    off = abs(position - middle) / middle if count > 1 else 0.0
    return 1.0 - (1.0 - EDGE_WEIGHT) * off


def blended(poses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, 4, 4) mean of rigid poses (N, V, 4, 4) with weights (N, V), of which one a row is
    positive: mean position, and normalised mean of quaternions of one sign. Equal poses are their
    own mean."""
    weights = weights / weights.sum(axis=1, keepdims=True)
    turns = Rotation.from_matrix(poses[..., :3, :3].reshape(-1, 3, 3)).as_quat()
    turns = turns.reshape(*weights.shape, 4)
    heaviest = np.take_along_axis(turns, weights.argmax(axis=1)[:, None, None], axis=1)
    turns = turns * np.where((turns * heaviest).sum(axis=-1, keepdims=True) < 0, -1.0, 1.0)
    mean = np.tile(np.eye(4), (len(poses), 1, 1))
    mean[:, :3, :3] = Rotation.from_quat((weights[..., None] * turns).sum(axis=1)).as_matrix()
    mean[:, :3, 3] = (weights[..., None] * poses[..., :3, 3]).sum(axis=1)
    return mean
