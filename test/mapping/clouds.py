"""Predictions with known geometry, for the tests of alignment and map."""

import numpy as np

from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import ChunkPrediction

INTRINSICS = np.array([[50.0, 0.0, 32.0], [0.0, 50.0, 12.0], [0.0, 0.0, 1.0]])
TRUTH = Sim3.exp(np.array([1.0, -2.0, 0.5, 0.3, -0.2, 0.5, 0.4]))
"""S_previous_current of `neighbours`."""


def prediction(
    index: int = 0, frames: int = 6, first: int = 0, seed: int = 0, shape=(24, 64)
) -> ChunkPrediction:
    """A camera that drives forward past random depths."""
    random = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = 0.8 * np.arange(frames)
    poses[:, 0, 3] = 0.1 * np.sin(np.arange(frames))
    return ChunkPrediction(
        chunk_index=index,
        frame_ids=tuple(range(first, first + frames)),
        T_chunk_camera=poses,
        intrinsics=np.tile(INTRINSICS, (frames, 1, 1)),
        depth=random.uniform(4, 30, (frames, *shape)).astype(np.float32),
        confidence=random.uniform(1, 5, (frames, *shape)).astype(np.float32),
        rgb=random.integers(0, 255, (frames, *shape, 3)).astype(np.uint8),
    )


def seen_from(S_previous_current: Sim3, previous: ChunkPrediction, index: int = 1, **changes):
    """The same frames as another chunk would predict them, in its own coordinates and scale."""
    S = S_previous_current.inverse()
    fields = {
        "chunk_index": index,
        "frame_ids": previous.frame_ids,
        "T_chunk_camera": S.move_pose(previous.T_chunk_camera),
        "intrinsics": previous.intrinsics,
        "depth": (previous.depth * S.scale).astype(np.float32),
        "confidence": previous.confidence,
        "rgb": previous.rgb,
    }
    return ChunkPrediction(**{**fields, **changes})


def error(found: Sim3, truth: Sim3 = TRUTH) -> np.ndarray:
    """(7,) log of the difference."""
    return np.abs((truth.inverse() @ found).log())
