"""LoGeR and LoGeR* as a reconstructor: a chunk is a window, and the memory goes from one to the
next.

The memory keeps all windows of a chain in one gauge, so predictions say that they are joined as
they are (`common`), or by the pose of a shared frame (`rigid`: LoGeR*, and LoGeR after a reset).
Causal streaming is the released offline algorithm itself; there is no second pass.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scal3r_ros.networks.descriptor import frame_descriptors
from scal3r_ros.networks.loger.checkpoint import LoadedNetwork
from scal3r_ros.networks.loger.placement import advance_in_turn
from scal3r_ros.networks.loger.state import WindowState, state_of
from scal3r_ros.networks.loger.windows import check_window
from scal3r_ros.reconstruct.devices import naming_lack_of_memory
from scal3r_ros.reconstruct.interface import MemoryState, Outcome, ReconstructionFailed
from scal3r_ros.reconstruct.loger.intake import WindowIntake
from scal3r_ros.reconstruct.loger.window_job import WindowJob, to_prediction
from scal3r_ros.records import Chunk, ChunkPrediction


@dataclass(frozen=True)
class WindowSettings:
    """How a sequence is cut, and what is kept between windows."""

    window: int
    overlap: int
    reset_every: int = 0
    """Windows after which the fast weights are forgotten; 0 never."""
    memory: bool = True
    """Without, every window stands alone; for comparison."""
    image_width: int = 0
    """0 takes the checkpoint's own size."""
    points: bool = False

    def __post_init__(self) -> None:
        check_window(self.window, self.overlap)


class LoGeRReconstructor:
    """Implements `Reconstructor`. A round is as many windows as there are devices: while one is in
    the last device's layers, the next is in those before."""

    def __init__(
        self, loaded: LoadedNetwork, settings: WindowSettings, stages: Sequence[int] = ()
    ) -> None:
        """`stages`: last block of each device, see `place`."""
        self.network, self.fingerprint = loaded.network, loaded.fingerprint
        self.name = self.network.architecture.variant
        self._settings = settings
        self._stages = list(stages) or [self.network.architecture.decoder_depth - 1]
        self.round_size: int | None = len(self._stages)
        self.reset()

    def reset(self) -> None:
        """Forget everything absorbed, the image size of the sequence included."""
        self._state = WindowState()
        self._intake = WindowIntake(self.network, self._settings.image_width)

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        """One chunk. Without `contribute` it stands alone: a loop window sees no memory and leaves
        none."""
        if contribute:
            (outcome,) = self.reconstruct_round([chunk])
        else:
            (outcome,), _ = self._run([chunk], WindowState(), remember=False)
        if isinstance(outcome, ReconstructionFailed):
            raise outcome
        return outcome

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        """Consecutive chunks, each with the memory that the one before leaves. After one that fails
        the next begins without memory."""
        outcomes: list[Outcome] = []
        state = self._state
        while len(outcomes) < len(chunks):
            found, states = self._run(chunks[len(outcomes) :], state, self._settings.memory)
            failed = [i for i, outcome in enumerate(found) if _failed(outcome)]
            usable = failed[0] if failed else len(found)
            outcomes += found[: usable + 1]
            state = WindowState() if failed else states[-1]
        self._state = state
        return outcomes

    def state(self) -> MemoryState:
        """The memory as arrays; consistent also while another thread reconstructs."""
        present = self._state
        arrays = {name: _array(value) for name, value in present.tensors().items()}
        return MemoryState(self.name, self.fingerprint, present.windows, arrays)

    def restore(self, state: MemoryState) -> None:
        """Replace the memory; an unfit `state` raises `ValueError` and changes nothing."""
        state.require(self.name, self.fingerprint)
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.arrays.items()}
        self._state = state_of(tensors, self.network.state_shapes())

    @torch.inference_mode()
    def _run(
        self, chunks: Sequence[Chunk], state: WindowState, remember: bool
    ) -> tuple[list[Outcome], list[WindowState]]:
        """Outcomes of chunks that follow one another, and what each of them leaves."""
        jobs: list[WindowJob] = []
        described = lambda: f"{len(jobs)} chunk(s) at {self._intake.target} px"  # noqa: E731
        with naming_lack_of_memory(self.network.device, described, jobs.clear):
            for chunk in chunks:
                jobs.append(self._begin(chunk, state, remember))
                state = jobs[-1].window.after
            self._advance(jobs)
            return [self._finish(job) for job in jobs], [job.window.after for job in jobs]

    def _begin(self, chunk: Chunk, left: WindowState, remember: bool) -> WindowJob:
        """Encode the images, and decide what the window reads and what its poses will mean."""
        started = time.perf_counter()
        follows = bool(chunk.overlap_ids) and left.windows > 0
        before = left.before_next(self._settings.reset_every) if follows else WindowState()
        emptied = follows and before is not left
        moved = self.network.architecture.se3 or emptied
        rgb, tokens = self._intake.tokens(chunk)
        patch = self.network.architecture.patch_size
        grid = (rgb.shape[1] // patch, rgb.shape[2] // patch)
        nominal = max(self._settings.window, len(chunk.frames))  # a loop window may be longer
        window = self.network.begin(
            tokens[None], grid, nominal, self._settings.overlap, before, remember
        )
        job = WindowJob(
            chunk.index,
            chunk.frame_ids,
            rgb,
            frame_descriptors(tokens).cpu().numpy(),
            window,
            gauge=("rigid" if moved else "common") if follows else "free",
            starts_segment=emptied,
        )
        job.seconds["encode"] = time.perf_counter() - started
        return job

    def _advance(self, jobs: Sequence[WindowJob]) -> None:
        started = time.perf_counter()
        with self.network.block_precision():
            advance_in_turn(self.network, [job.window for job in jobs], self._stages)
        for device in {job.window.tokens.device for job in jobs if job.window.tokens.is_cuda}:
            torch.cuda.synchronize(device)
        for job in jobs:
            job.seconds["layers"] = (time.perf_counter() - started) / len(jobs)

    def _finish(self, job: WindowJob) -> Outcome:
        started = time.perf_counter()
        raw = self.network.decode(job.window)
        outcome = to_prediction(job, raw, self._settings.points)
        if not job.window.after.finite:
            outcome = ReconstructionFailed(
                f"what chunk {job.index} would leave in the memory is not finite"
            )
        job.seconds["heads"] = time.perf_counter() - started
        return outcome


def _failed(outcome: Outcome) -> bool:
    return isinstance(outcome, ReconstructionFailed)


def _array(tensor: torch.Tensor) -> np.ndarray:
    """Without loss; numpy knows no bfloat16."""
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return wide.cpu().numpy()
