"""One process of a group: reconstructs its share of every round and keeps its memory in step.

Used by the reconstruction node and by `torchrun`; a group of one is the same code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist

from scal3r_ros.config import DistributedConfig
from scal3r_ros.reconstruct.interface import (
    ChunksAtFault,
    MemoryState,
    OutOfDeviceMemory,
    ReconstructionFailed,
)
from scal3r_ros.records import Chunk, ChunkPrediction
from scal3r_ros.workers.exchange import AllReduceSync, Traffic
from scal3r_ros.workers.group import Group, Place, connect, join_store
from scal3r_ros.workers.hand_out import Fault, Result
from scal3r_ros.workers.membership import GroupBroken, Origin
from scal3r_ros.workers.packing import broadcast_bytes, checksum, download, seal, unseal, upload
from scal3r_ros.workers.rounds import Reached, agree, exchange_progress, vote
from scal3r_ros.workers.shares import Share
from scal3r_ros.workers.snapshots import snapshot_key
from scal3r_ros.workers.tasks import Assignment, MemorySummary

_LAYER = re.compile(r"layer(\d+)")


class RoundEngine(Protocol):
    """What a reconstructor offers to be run in rounds over several processes."""

    name: str
    round_size: int | None
    fingerprint: str

    @property
    def decay(self) -> float:
        """Weight of a chunk that is one older."""

    def stage_round(
        self,
        chunks: Sequence[Chunk],
        *,
        places: Sequence[int],
        size: int,
        sync: Any,
    ) -> list[Result]:
        """Reconstruct chunks side by side; `sync` is called once per memory layer, also without
        any chunk. The memory advances only with `commit`. Raises `ChunksAtFault`."""

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction: ...

    def absorb(self, deltas: Mapping[int, Any], chunks: int = 1) -> None:
        """Advance the memory by deltas that were computed before, here or elsewhere."""

    def delta_shapes(self) -> Mapping[int, Any]:
        """By layer, something of the shape and device of its delta."""

    def reset(self) -> None: ...

    def state(self) -> MemoryState: ...

    def restore(self, state: MemoryState) -> None: ...


@dataclass(frozen=True)
class ShareOutcome:
    """What became of this process' share of the work: of a round, or of one chunk (async)."""

    committed: bool
    results: list[Result]
    """One per own chunk if committed, else empty."""
    at_fault: Mapping[int, Fault] = field(default_factory=dict)
    """Own chunks for which the work was taken back, by index."""


@dataclass
class LockstepWorker:
    """State: the engine with its memory, the present group, and how far the memory has come."""

    engine: RoundEngine
    config: DistributedConfig
    device: torch.device
    """Where the engine computes; decides the backend."""
    group: Group | None = None
    progress: Reached = Reached(epoch=0, committed=-1)
    traffic: Traffic = field(default_factory=Traffic)
    """Of the last round."""
    staleness: int = 0
    """Chunks that the last one had to do without; none in lockstep."""

    def enter(self, name: str, plan: Assignment) -> None:
        """Take the place of worker `name` in a planned group."""
        store = join_store(plan.address, plan.port, self.config)
        place = Place(plan.generation, plan.workers.index(name), len(plan.workers))
        self.join(store, place, plan.origin)

    def join(self, store: dist.Store, place: Place, origin: Origin) -> None:
        """Enter a generation and take over the common memory; `GroupBroken` if that fails."""
        self.leave()
        self.group = connect(store, place, self.config, self.device)
        try:
            self._begin_from(origin, store)
            self._take_common_memory()
        except GroupBroken:
            self.leave()
            raise

    def leave(self) -> None:
        """Drop out of the group; the memory stays."""
        if self.group is not None:
            self.group.close()
            self.group = None

    def run(self, number: int, chunks: Sequence[Chunk], share: Share) -> ShareOutcome:
        """Do this process' share of round `number` and commit it if every process could do its own.

        `GroupBroken` when a process is lost; the next `join` decides what became of the round.
        """
        sync = AllReduceSync(self._present_group(), getattr(torch, self.config.wire))
        self.traffic = sync.traffic
        try:
            staged = self._stage(chunks, share, sync)
            self.progress = replace(self.progress, staged=number)
            failed = isinstance(staged, Exception)
            committed = vote(self._present_group(), number, failed)
        except GroupBroken:
            self._forget_unless_staged(number)
            raise
        if isinstance(staged, Exception):
            self._forget()
            return ShareOutcome(False, [], at_fault(chunks, staged))
        if not committed:
            self._forget()
            return ShareOutcome(False, [])
        self.engine.commit()
        self.progress = replace(self.progress, committed=number, staged=-1)
        return ShareOutcome(True, staged)

    @property
    def idle_wait(self) -> float:
        """Seconds between two calls of `poll` while idle."""
        return self.config.heartbeat_period

    def poll(self) -> None:
        """Between rounds there is nothing to do."""

    def read(self, chunk: Chunk) -> ChunkPrediction:
        """Reconstruct a chunk that leaves no trace in the memory; needs no other process."""
        return self.engine.reconstruct(chunk, contribute=False)

    def packed_memory(self) -> bytes:
        """The committed memory."""
        state = self.engine.state()
        header = {
            "kind": state.kind,
            "fingerprint": state.fingerprint,
            "version": str(state.version),
            "committed": str(max(self.progress.committed, 0)),
        }
        return seal(header, state.arrays)

    def store_memory(self, plan: Assignment) -> None:
        """Leave the committed memory where the plan's snapshot request asks for it."""
        store = join_store(plan.address, plan.port, self.config)
        key = snapshot_key(plan.snapshot_request)
        upload(store, key, self.packed_memory(), self.config.service_timeout)

    def summary(self) -> MemorySummary:
        """The committed memory in a few numbers; costs one pass over it. The digest is one of
        bytes, since norms differ in the last digit between two kinds of processor."""
        state = self.engine.state()
        squares: dict[int, float] = {}
        for name in sorted(state.arrays):
            layer = _LAYER.search(name)
            if layer:
                values = state.arrays[name].ravel()
                key = int(layer.group(1))
                squares[key] = squares.get(key, 0.0) + float(np.dot(values, values))
        layers = tuple(sorted(squares))
        norms = tuple(squares[layer] ** 0.5 for layer in layers)
        return MemorySummary(state.version, layers, norms, checksum(state.arrays)[:16])

    def _stage(
        self, chunks: Sequence[Chunk], share: Share, sync: AllReduceSync
    ) -> list[Result] | Fault:
        """Results of the own chunks, or why they cannot be absorbed; the exchange is finished in
        either case, with zeros if need be, so that the others do not wait."""
        places = range(share.offset, share.offset + share.count)
        try:
            return self.engine.stage_round(chunks, places=places, size=share.size, sync=sync)
        except (ReconstructionFailed, OutOfDeviceMemory) as error:
            self.engine.rollback()
            remaining = _Resumed(sync, sync.traffic.collectives)
            self.engine.stage_round([], places=(), size=share.size, sync=remaining)
            self.engine.rollback()
            return error

    def _begin_from(self, origin: Origin, store: dist.Store) -> None:
        if origin.kind == "zero":
            self._forget()
            self.engine.reset()
            self.progress = Reached(origin.epoch, 0)
        elif origin.kind == "stored" and self._present_group().rank == 0:
            self._forget()
            try:
                self.restore(download(store, origin.key, self.config.connect_timeout))
            except ValueError as error:
                raise GroupBroken(f"the stored memory is refused: {error}") from error
            self.progress = Reached(origin.epoch, 0)

    def _take_common_memory(self) -> None:
        group = self._present_group()
        agreement = agree(exchange_progress(group, self.progress), group.rank)
        if agreement.commit_staged:
            self.engine.commit()
        else:
            self._forget()
        if agreement.send:
            own = self.packed_memory() if group.rank == agreement.source else None
            data = broadcast_bytes(group, own, agreement.source)
            if own is None:
                self.restore(data)
        self.progress = Reached(agreement.epoch, max(agreement.committed, 0))

    def restore(self, data: bytes) -> None:
        header, arrays = unseal(data)
        self.engine.restore(
            MemoryState(header["kind"], header["fingerprint"], int(header["version"]), arrays)
        )

    def _forget_unless_staged(self, number: int) -> None:
        if self.progress.staged != number:
            self._forget()

    def _forget(self) -> None:
        self.engine.rollback()
        self.progress = replace(self.progress, staged=-1)

    def _present_group(self) -> Group:
        if self.group is None:
            raise GroupBroken("this process is in no group")
        return self.group


def at_fault(chunks: Sequence[Chunk], error: Fault) -> dict[int, Fault]:
    """What to blame on which of a process' chunks, by index: those that `error` names, else all."""
    if isinstance(error, ChunksAtFault):
        return dict(error.failures)
    return {chunk.index: error for chunk in chunks}


@dataclass
class _Resumed:
    """The rest of a round's exchanges for a process that dropped out after `done` of them."""

    sync: AllReduceSync
    done: int

    def __call__(self, layer: int, gradients: Any) -> Any:
        if self.done:
            self.done -= 1
            return gradients
        return self.sync(layer, gradients)
