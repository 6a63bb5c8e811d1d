"""From a mapped chunk to what trackers hold on to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scal3r_ros.records import ChunkPrediction, TrajectoryPose
from scal3r_ros.tracking.interface import Submap

_IMAGES = 12
"""Most images of a chunk that are kept, the newest ones."""


def submap_of(
    prediction: ChunkPrediction, poses: Sequence[TrajectoryPose], scale: float
) -> Submap | None:
    """The newest frames of `prediction` in the map, from their `poses` in it and the chunk's
    `scale` (map units per chunk unit). None if none of them is in the map or has depth."""
    placed = {pose.frame_id: pose for pose in poses}
    chosen = [i for i, frame in enumerate(prediction.frame_ids) if frame in placed][-_IMAGES:]
    depth = prediction.depth[chosen] * np.float32(scale)
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))
    if not np.isfinite(depth).any():
        return None
    mine = [placed[prediction.frame_ids[i]] for i in chosen]
    return Submap(
        np.array([pose.stamp_ns for pose in mine], np.int64),
        np.stack([pose.T_map_camera for pose in mine]),
        depth,
        prediction.confidence[chosen],
        prediction.intrinsics[chosen],
    )
