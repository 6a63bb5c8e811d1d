"""The Scal3R network as a reconstructor: the only place where numpy records meet torch tensors."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import torch

from scal3r_ros.config import MemoryConfig
from scal3r_ros.networks.scal3r.checkpoint import LoadedNetwork
from scal3r_ros.networks.scal3r.memory import (
    ContextMemory,
    Deltas,
    LocalMemory,
    NoMemory,
    NotFinite,
    Round,
    RoundMemory,
    Sync,
    no_sync,
)
from scal3r_ros.networks.scal3r.schedule import ChunkStates, advance_all, run_round
from scal3r_ros.reconstruct.devices import naming_lack_of_memory
from scal3r_ros.reconstruct.interface import (
    ChunksAtFault,
    MemoryState,
    Outcome,
    ReconstructionFailed,
)
from scal3r_ros.reconstruct.scal3r.chunk_job import ChunkJob, JobStates, to_prediction
from scal3r_ros.reconstruct.scal3r.intake import ChunkIntake
from scal3r_ros.reconstruct.scal3r.parked_chunks import ParkedChunks, ParkedStates
from scal3r_ros.records import Chunk, ChunkPrediction


class Scal3RReconstructor:
    """Chunks through the network, with the memory mode that the configuration names.

    Work happens in two steps where several processes meet: `stage_round` computes, `commit` lets
    the memory advance (or `rollback` drops the round); `reconstruct` and `reconstruct_round` do
    both. Mode `finalize` keeps every chunk's tokens until `reset`, on disk where they exceed
    `memory.host_megabytes`.
    """

    name = "scal3r"

    def __init__(
        self,
        loaded: LoadedNetwork,
        memory: MemoryConfig | None = None,
        image_size: int = 0,
        point_head: bool = False,
        folder: Path | None = None,
    ):
        """`folder` is for what does not fit into the host's memory; default: a temporary one."""
        self._config = memory or MemoryConfig()
        if self._config.window and self._config.mode in ("batch", "finalize"):
            raise ValueError(
                f"memory.window forgets while streaming, memory.mode {self._config.mode} does not "
                f"stream; set memory.window to 0"
            )
        self.network = loaded.network
        self.fingerprint = loaded.fingerprint
        self.layers = self.network.architecture.ttt_layers
        self.round_size: int | None = None if self._config.mode == "batch" else 1
        self._points = point_head
        self._folder = folder
        self._image_size = image_size or self.network.architecture.image_size
        self.reset()

    def reset(self) -> None:
        """Forget everything absorbed, the image size of the sequence included."""
        self.memory = self._empty_memory()
        self._intake = ChunkIntake(self.network, self._image_size, self._points)
        self._staged: Round | None = None
        self._parked = ParkedChunks(1e6 * self._config.host_megabytes, self._folder)

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        """One chunk; with `contribute` the memory absorbs it."""
        (outcome,) = self._stage([chunk], self.memory.round(1, contribute))
        self.commit()
        if isinstance(outcome, ReconstructionFailed):
            raise outcome
        return outcome

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        """Consecutive chunks side by side, layer by layer, all contributing; those at fault are
        left out and the others done again, so that the memory never holds a part of a chunk."""
        outcomes: dict[int, Outcome] = {}
        while pending := [chunk for chunk in chunks if chunk.index not in outcomes]:
            try:
                staged = self.stage_round(pending)
            except ChunksAtFault as fault:
                outcomes |= fault.failures
            else:
                self.commit()
                outcomes |= zip((chunk.index for chunk in pending), staged)
        return [outcomes[chunk.index] for chunk in chunks]

    def stage_round(
        self,
        chunks: Sequence[Chunk],
        *,
        places: Sequence[int] | None = None,
        size: int | None = None,
        sync: Sync = no_sync,
    ) -> list[Outcome]:
        """Compute a round without advancing the memory. `places` and `size` put the chunks into a
        round over several processes, where `sync` is called once per memory layer, without chunks
        too. What `sync` raises passes through. Raises `ChunksAtFault` before `sync` has seen
        anything of a layer at which a chunk's gradients are not finite."""
        return self._stage(chunks, self.memory.round(len(chunks), True, places, size, sync))

    def commit(self) -> None:
        """Let the memory absorb the staged round, if there is one."""
        if self._staged is not None:
            self._staged.commit()
        self._staged = None
        self._parked.commit()

    def rollback(self) -> None:
        """Forget the staged round."""
        self._staged = None
        self._parked.rollback()

    @property
    def decay(self) -> float:
        """Weight of a chunk's gradients when one more has been absorbed."""
        return self._config.decay

    def absorb(self, deltas: Deltas, chunks: int = 1) -> None:
        """Advance the memory by gradient sums that were computed before, here or elsewhere."""
        self.memory.merge(deltas, chunks)

    def delta_shapes(self) -> Deltas:
        """By memory layer, something of the shape and device of its gradients."""
        return self.network.memory_shapes()

    @torch.no_grad()
    def finalize(self) -> Iterator[Outcome]:
        """Mode `finalize`: all chunks again from the first memory layer on, with the memory of the
        whole sequence; equal to mode `batch`. In the order given, decoded as they are asked for. A
        chunk whose gradients turn out not to be finite only reads."""
        if self._config.mode != "finalize":
            raise ValueError(f"finalize needs memory.mode finalize, found {self._config.mode}")
        self._parked.rollback()
        absorbed = self._parked.numbers(contributed=True)
        with self._device_errors([]):
            while True:
                memory, states = self._empty_memory(), self._parked.states()
                whole = memory.round(len(absorbed))
                try:
                    self._advance(states.only(absorbed), whole)
                except NotFinite as error:
                    if not error.places:
                        raise
                    absorbed = [n for i, n in enumerate(absorbed) if i not in error.places]
                else:
                    break
            whole.commit()
            for number in sorted(set(range(len(self._parked))) - set(absorbed)):
                self._advance(states.only([number]), memory.round(1, contribute=False))
        self.memory = memory
        return self._decoded(states, absorbed)

    def save_chunks(self, folder: Path) -> int:
        """Mode `finalize`: write the committed chunks that `folder` does not hold yet; returns the
        number of all."""
        return self._parked.save(folder)

    def load_chunks(self, folder: Path, count: int, known: Collection[int]) -> None:
        """Mode `finalize`: take those of the first `count` chunks of `save_chunks` whose index is
        `known` instead of the present ones, which stay if that fails."""
        parked = ParkedChunks(1e6 * self._config.host_megabytes, self._folder)
        parked.load(folder, count, known)
        self._parked = parked

    def state(self) -> MemoryState:
        """The committed memory as arrays; consistent also while another thread reconstructs."""
        arrays = {k: v.cpu().numpy() for k, v in self.memory.state_dict().items()}
        return MemoryState(self.name, self.fingerprint, int(arrays["chunks"]), arrays)

    def restore(self, state: MemoryState) -> None:
        """Replace the memory; an unfit `state` raises `ValueError` and changes nothing."""
        state.require(self.name, self.fingerprint)
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in state.arrays.items()}
        self.memory.load_state_dict(tensors, self.network.memory_shapes())
        self._staged = None

    @torch.no_grad()
    def _stage(self, chunks: Sequence[Chunk], round_: Round) -> list[Outcome]:
        """Encode, pass all layers, read the heads; what the memory gains waits for `commit`."""
        self.rollback()
        memory = self._round_memory(round_)
        absorbs = round_.contribute and memory is round_
        version = self.memory.chunks + (round_.size if absorbs else 0)
        jobs: list[ChunkJob] = []
        with self._device_errors(jobs), _blame(chunks, round_):
            self._encode(chunks, jobs)
            if self._config.mode == "finalize":
                self._park(jobs, round_.contribute)
            self._advance(JobStates(jobs), memory, jobs)
            outcomes = [self._finish(job, version, absorbs) for job in jobs]
        if absorbs:
            self._staged = round_
        return outcomes

    def _encode(self, chunks: Sequence[Chunk], jobs: list[ChunkJob]) -> None:
        """Fill `jobs` one by one, so that what fails in the middle can be freed."""
        for chunk in chunks:
            jobs.append(self._intake.begin(chunk))
            rest = self._rest(chunks) or self.network.device
            jobs[-1].state = jobs[-1].present_state.to(rest)

    def _advance(
        self, states: ChunkStates, memory: RoundMemory, jobs: Sequence[ChunkJob] = ()
    ) -> None:
        """All remaining layers; several chunks rest on the host between their turns."""
        started = time.perf_counter()
        run_round(self.network, states, memory, park=self._rest(states))
        if self.network.device.type == "cuda":
            torch.cuda.synchronize(self.network.device)
        for job in jobs:
            job.seconds["layers"] = (time.perf_counter() - started) / len(jobs)

    @torch.no_grad()
    def _decoded(self, states: ParkedStates, absorbed: Sequence[int]) -> Iterator[Outcome]:
        for number in range(len(states)):
            with self._device_errors([]):
                job = self._parked.take(states, number)
                yield self._finish(job, len(absorbed), number in absorbed)

    def _rest(self, chunks: Sized) -> str | None:
        """Where chunks wait for their turn: one alone stays on the device."""
        return "cpu" if len(chunks) > 1 and self.network.device.type != "cpu" else None

    def _park(self, jobs: Sequence[ChunkJob], contribute: bool) -> None:
        """Keep the chunks as they stand in front of the first memory."""
        depth = self.network.architecture.depth
        for job in jobs:
            states = [job.present_state]
            advance_all(self.network, states, self.layers[0] if self.layers else depth - 1)
            job.state = states[0]
            self._parked.park(job, contribute)

    def _finish(self, job: ChunkJob, version: int, absorbed: bool) -> Outcome:
        """Read the heads."""
        started = time.perf_counter()
        raw = self.network.decode(job.present_state.to(self.network.device))
        job.state = None
        outcome = to_prediction(job, raw, version, absorbed)
        job.seconds["heads"] = time.perf_counter() - started
        return outcome

    def _empty_memory(self) -> ContextMemory:
        newton_schulz = self.network.numerics.newton_schulz
        return ContextMemory(newton_schulz, self._config.decay, self._config.window)

    def _round_memory(self, round_: Round) -> RoundMemory:
        if self._config.mode == "off":
            return NoMemory()
        if self._config.mode == "local":
            return LocalMemory(self.network.numerics.newton_schulz)
        return round_

    def _device_errors(self, jobs: list[ChunkJob]) -> AbstractContextManager[None]:
        """Name the lack of device memory, and free what the failed attempt held of it."""
        return naming_lack_of_memory(
            self.network.device,
            lambda: f"{len(jobs)} chunk(s) at {self._intake.target} px",
            jobs.clear,
        )


@contextmanager
def _blame(chunks: Sequence[Chunk], round_: Round) -> Iterator[None]:
    """Name the chunks whose gradients are not finite; all, if only their sum is known."""
    try:
        yield
    except NotFinite as error:
        at_fault = [c for c, place in zip(chunks, round_.places) if place in error.places]
        raise ChunksAtFault(
            {
                chunk.index: f"what chunk {chunk.index} would add to the memory at layer "
                f"{error.layer} is not finite; the memory did not absorb it"
                for chunk in at_fault or chunks
            }
        ) from error
