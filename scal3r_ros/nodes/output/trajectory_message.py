"""Map updates as `ChunkTrajectory`: parallel arrays, so that a thousand poses are cheap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.msg import ChunkTrajectory
from scal3r_ros.nodes.base.conversions import fill, header
from scal3r_ros.records import MapUpdate, TrajectoryPose


def trajectory_message(
    update: MapUpdate,
    poses: Sequence[TrajectoryPose],
    map_frame: str,
    camera_frame: str,
    run_id: str,
) -> ChunkTrajectory:
    """The poses of an update, oldest first."""
    T = np.stack([pose.T_map_camera for pose in poses])
    covariances = np.stack([pose.covariance for pose in poses]).astype(np.float64)
    scale = update.scale
    return ChunkTrajectory(
        header=header(map_frame, poses[-1].stamp_ns),
        child_frame_id=camera_frame,
        run_id=run_id,
        session=update.session,
        chunk_index=update.chunk_index,
        map_revision=update.map_revision,
        corrected=update.corrected,
        frame_ids=fill(np.array([pose.frame_id for pose in poses], np.uint64), "Q"),
        stamps_ns=fill(np.array([pose.stamp_ns for pose in poses], np.int64), "q"),
        pose_chunk_indices=fill(np.array([p.chunk_index for p in poses], np.uint64), "Q"),
        positions=fill(T[:, :3, 3], "d"),
        orientations=fill(rigid.quaternion(T[:, :3, :3]), "d"),
        covariances=fill(covariances, "d"),
        confidence=fill(np.array([pose.confidence for pose in poses], np.float32), "f"),
        provisional=[bool(pose.provisional) for pose in poses],
        scale_known=bool(scale.known),
        scale_source=scale.source,
        scale=float(scale.value),
        scale_variance=float(scale.variance),
        scale_frozen=bool(scale.frozen),
        timing_names=list(update.timings),
        timing_seconds=fill(np.array(list(update.timings.values()), np.float64), "d"),
    )
