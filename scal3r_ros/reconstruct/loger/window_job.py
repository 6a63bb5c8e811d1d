"""One window on its way through the network, and its result as numpy records."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scal3r_ros.networks.loger.decoder import WindowPass
from scal3r_ros.networks.loger.heads import world_points
from scal3r_ros.networks.loger.network import Prediction
from scal3r_ros.reconstruct.interface import Outcome, ReconstructionFailed
from scal3r_ros.records import ChunkPrediction


@dataclass
class WindowJob:
    """A chunk between its images and its prediction."""

    index: int
    frame_ids: tuple[int, ...]
    rgb: np.ndarray
    """(S, H, W, 3) uint8, chronological."""
    descriptors: np.ndarray
    window: WindowPass
    gauge: str
    starts_segment: bool
    seconds: dict[str, float] = field(default_factory=dict)


def to_prediction(job: WindowJob, raw: Prediction, points: bool) -> Outcome:
    """Depth, confidence in (0, 1), poses and pinhole cameras of a window; with `points` also the
    points as the network gave them, which need not lie on the rays of a pinhole camera."""
    poses, local, confidence = raw.poses[0], raw.local_points[0], raw.confidence[0].sigmoid()
    intrinsics = pinhole_matrices(local, confidence)
    if not (poses.isfinite().all() and intrinsics.isfinite().all()):
        return ReconstructionFailed(f"the network's answer for chunk {job.index} is not finite")
    if not (intrinsics[:, (0, 1), (0, 1)] > 0).all():
        return ReconstructionFailed(
            f"the network's points of chunk {job.index} fit no pinhole camera"
        )
    depth = local[..., 2]
    known = depth.isfinite() & confidence.isfinite()
    world = world_points(poses, local).cpu().numpy() if points else None
    return ChunkPrediction(
        chunk_index=job.index,
        frame_ids=job.frame_ids,
        T_chunk_camera=poses.double().cpu().numpy(),
        intrinsics=intrinsics.double().cpu().numpy(),
        depth=depth.where(known, torch.nan).cpu().numpy(),
        confidence=confidence.where(known, 0.0).cpu().numpy(),
        rgb=job.rgb,
        descriptors=job.descriptors,
        points=world,
        gauge=job.gauge,
        starts_segment=job.starts_segment,
        memory_version=job.window.after.windows,
        timings=job.seconds,
    )


def pinhole_matrices(local_points: Tensor, confidence: Tensor) -> Tensor:
    """(S, 3, 3) cameras whose rays are nearest to those of local points (S, H, W, 3): focal lengths
    by least squares, weighted by confidence (S, H, W), the principal point in the centre.

    Pixel centres are at + 0.5.
    """
    height, width = confidence.shape[1:]
    rays = local_points[..., :2] / local_points[..., 2:]
    columns, rows = (
        torch.arange(size, device=rays.device) + 0.5 - size / 2 for size in (width, height)
    )
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    weight = confidence[..., None] * rays.isfinite()
    rays = rays.nan_to_num(0.0, 0.0, 0.0)
    focal = (weight * rays * pixels).sum((1, 2)) / (weight * rays**2).sum((1, 2))
    matrices = torch.zeros(len(focal), 3, 3, device=focal.device, dtype=focal.dtype)
    matrices[:, 0, 0], matrices[:, 1, 1] = focal.unbind(1)
    matrices[:, 0, 2], matrices[:, 1, 2], matrices[:, 2, 2] = width / 2, height / 2, 1.0
    return matrices
