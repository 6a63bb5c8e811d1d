"""What two chunks have both seen: frames are matched by id, and their pixels by position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scal3r_ros.mapping.camera import unproject, valid_pixels
from scal3r_ros.mapping.similarity_fit import DegenerateOverlap
from scal3r_ros.records import ChunkPrediction


@dataclass(frozen=True)
class Matches:
    """Pixels of shared frames that both chunks have seen."""

    source: np.ndarray
    """(N, 3) points in the current chunk."""
    target: np.ndarray
    """(N, 3) the same points in the previous chunk."""
    confidence_source: np.ndarray
    confidence_target: np.ndarray
    depth_source: np.ndarray
    depth_target: np.ndarray
    frame: np.ndarray
    """(N,) position among the shared frames."""


def shared_positions(
    previous: ChunkPrediction, current: ChunkPrediction
) -> tuple[list[int], list[int]]:
    """Positions of the frames that both chunks reconstructed, in each of them."""
    place = {frame_id: i for i, frame_id in enumerate(previous.frame_ids)}
    pairs = [(place[f], i) for i, f in enumerate(current.frame_ids) if f in place]
    return [a for a, _ in pairs], [b for _, b in pairs]


def collect_matches(
    previous: ChunkPrediction,
    current: ChunkPrediction,
    max_points: int = 0,
    use_points: bool = False,
) -> Matches:
    """Matched pixels of the shared frames on a regular grid that keeps about `max_points` (0:
    all)."""
    before, after = shared_positions(previous, current)
    if not before:
        raise DegenerateOverlap("no_overlap")
    if previous.depth.shape[1:] != current.depth.shape[1:]:
        raise DegenerateOverlap("image_size_changed")
    common = valid_pixels(previous.depth[before], previous.confidence[before])
    common &= valid_pixels(current.depth[after], current.confidence[after])
    pixels = np.count_nonzero(common)  # maps of feature points are sparse: thin what is there
    step = max(1, int(np.ceil(np.sqrt(pixels / max_points)))) if max_points else 1
    grid = np.s_[:, step // 2 :: step, step // 2 :: step]
    sides = []
    for prediction, positions in ((previous, before), (current, after)):
        depth, confidence = prediction.depth[positions], prediction.confidence[positions]
        if use_points:
            assert prediction.points is not None  # asked for only where both chunks have them
            points = prediction.points[positions][grid]
        else:
            T_chunk_camera = prediction.T_chunk_camera[positions]
            intrinsics = prediction.intrinsics[positions]
            points = unproject(depth, intrinsics, T_chunk_camera, step, step // 2)
        sides.append((points, depth[grid], confidence[grid]))
    valid = valid_pixels(*sides[0][1:]) & valid_pixels(*sides[1][1:])
    if not valid.any():
        raise DegenerateOverlap("no_valid_pixels")
    (target, depth_target, confidence_target), (source, depth_source, confidence_source) = [
        tuple(array[valid] for array in side) for side in sides
    ]
    return Matches(
        source,
        target,
        confidence_source,
        confidence_target,
        depth_source,
        depth_target,
        np.nonzero(valid)[0],
    )
