"""What the network says about one frame, and a chunk of such answers as a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scal3r_ros.networks.descriptor import frame_descriptors
from scal3r_ros.networks.mem3r.network import Encoded, Mem3R
from scal3r_ros.networks.mem3r.outputs import focal_length, pose_matrix
from scal3r_ros.networks.mem3r.recurrence import Step
from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.records import Chunk, ChunkPrediction


@dataclass(frozen=True)
class FrameAnswer:
    """One frame in the coordinates of its block."""

    T_block_camera: np.ndarray
    """(4, 4) float64, rigid."""
    intrinsics: np.ndarray
    """(3, 3) float64; pixel centres at + 0.5."""
    depth: np.ndarray
    """(H, W) float32, NaN where the network says nothing of use."""
    confidence: np.ndarray
    """(H, W) float32 in 0..1, as other networks have it."""
    rgb: np.ndarray
    """(H, W, 3) uint8."""
    descriptor: np.ndarray
    """(D,) float32."""


def read_out(
    network: Mem3R, frame_id: int, rgb: np.ndarray, encoded: Encoded, seen: Step
) -> FrameAnswer:
    """The heads' answer: depth is the z of the camera's own map, whose rays give the focal length.
    Raises `ReconstructionFailed` for numbers that are none."""
    heads = network.downstream_head
    points, confidence = heads.camera_map(seen.hooks)
    pose = pose_matrix(heads.camera_pose(seen.hooks).double())[0].cpu().numpy()
    focal = float(focal_length(points)[0])
    if not np.isfinite(pose).all() or not np.isfinite(focal) or focal <= 0:
        raise ReconstructionFailed(f"the network's answer for frame {frame_id} is not finite")
    left, _, right = np.linalg.svd(pose[:3, :3])
    pose[:3, :3] = left @ right
    depth = points[0, ..., 2].cpu().numpy().copy()
    sure = 1.0 - 1.0 / confidence[0].cpu().numpy()
    known = np.isfinite(depth) & (depth > 0) & np.isfinite(sure)
    height, width = depth.shape
    # The network counts pixels from the one at half the width, ours have their centre at + 0.5.
    centre = width // 2 + 0.5, height // 2 + 0.5
    K = np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])
    return FrameAnswer(
        pose,
        K,
        np.where(known, depth, np.float32(np.nan)),
        np.where(known, sure, np.float32(0.0)).astype(np.float32),
        rgb,
        frame_descriptors(encoded.tokens)[0].cpu().numpy(),
    )


def stacked(chunk: Chunk, answers: Sequence[FrameAnswer]) -> ChunkPrediction:
    """A prediction of free gauge from the answers for the frames of `chunk`."""
    sizes = {answer.depth.shape for answer in answers}
    if len(sizes) > 1:
        raise ReconstructionFailed(
            f"the images of chunk {chunk.index} have different shapes: "
            f"{', '.join(f'{w}x{h}' for h, w in sorted(sizes))} as the network sees them"
        )
    columns = {name: np.stack([getattr(a, name) for a in answers]) for name in vars(answers[0])}
    return ChunkPrediction(
        chunk_index=chunk.index,
        frame_ids=chunk.frame_ids,
        T_chunk_camera=columns["T_block_camera"],
        intrinsics=columns["intrinsics"],
        depth=columns["depth"],
        confidence=columns["confidence"],
        rgb=columns["rgb"],
        descriptors=columns["descriptor"],
    )
