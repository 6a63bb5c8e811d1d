"""One chunk on its way through the network, and its result as numpy records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from scal3r_ros.mapping.camera import decode_cameras
from scal3r_ros.mapping.chunking import middle_position
from scal3r_ros.networks.scal3r.chunk_state import ChunkState
from scal3r_ros.networks.scal3r.network import Prediction
from scal3r_ros.reconstruct.interface import Outcome, ReconstructionFailed
from scal3r_ros.records import ChunkPrediction


@dataclass
class ChunkJob:
    """A chunk between its images and its prediction."""

    index: int
    frame_ids: tuple[int, ...]
    rgb: np.ndarray
    """(S, H, W, 3) uint8, chronological."""
    order: list[int]
    descriptors: np.ndarray
    state: ChunkState | None
    """None once the heads have read it."""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def present_state(self) -> ChunkState:
        assert self.state is not None, f"chunk {self.index} is finished"
        return self.state


def network_order(count: int) -> list[int]:
    """Chronological positions in network order: the middle frame, which is the reference, moves
    to the front, the others keep their order."""
    middle = middle_position(count)
    return [middle, *(i for i in range(count) if i != middle)]


def to_prediction(job: ChunkJob, raw: Prediction, version: int, absorbed: bool) -> Outcome:
    """Undo the network's frame order and decode the cameras. `version` is that of the memory,
    `absorbed` whether this chunk is part of it."""
    back = np.argsort(job.order)
    height, width = raw.depth.shape[-2:]
    try:
        poses, intrinsics = decode_cameras(_finite(raw.camera[0])[back], height, width)
    except ValueError as error:
        memory = "has absorbed the chunk all the same" if absorbed else "is unchanged"
        return ReconstructionFailed(
            f"the network's cameras of chunk {job.index} are of no use ({error}); the memory "
            f"{memory}"
        )
    depth, confidence = raw.depth[0, back], raw.depth_confidence[0, back]
    known = depth.isfinite() & confidence.isfinite()  # on the device: these are tens of megabytes
    points = None if raw.points is None else raw.points[0, back].cpu().numpy()
    return ChunkPrediction(
        chunk_index=job.index,
        frame_ids=job.frame_ids,
        T_chunk_camera=poses,
        intrinsics=intrinsics,
        depth=depth.where(known, torch.nan).cpu().numpy(),
        confidence=confidence.where(known, 0.0).cpu().numpy(),
        rgb=job.rgb,
        descriptors=job.descriptors,
        points=points,
        memory_version=version,
        timings=job.seconds,
    )


class JobStates:
    """The states of several jobs, as the schedule goes through them."""

    def __init__(self, jobs: Sequence[ChunkJob]) -> None:
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[ChunkState]:
        return (job.present_state for job in self._jobs)

    def __getitem__(self, position: int, /) -> ChunkState:
        return self._jobs[position].present_state

    def __setitem__(self, position: int, state: ChunkState, /) -> None:
        self._jobs[position].state = state


def _finite(cameras: torch.Tensor) -> np.ndarray:
    if not cameras.isfinite().all():
        raise ValueError("they are not finite")
    return cameras.cpu().numpy()
