"""A worker without rounds: every chunk reads what has arrived, and its deltas go out as they come.

The number of a chunk (`number` of `run`) is its key: handed in twice, it contributes once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist

from scal3r_ros.networks.scal3r.memory import NotFinite
from scal3r_ros.reconstruct.interface import OutOfDeviceMemory, ReconstructionFailed
from scal3r_ros.records import Chunk
from scal3r_ros.workers.deltas import DeltaLedger
from scal3r_ros.workers.exchange import Traffic, unflatten
from scal3r_ros.workers.group import Place
from scal3r_ros.workers.hand_out import Result
from scal3r_ros.workers.lockstep_worker import LockstepWorker, ShareOutcome, at_fault
from scal3r_ros.workers.mailbox import Mailbox, Note, wait_until_drained
from scal3r_ros.workers.membership import GroupBroken, Origin
from scal3r_ros.workers.shares import Share

log = logging.getLogger(__name__)
_POLL_PERIOD = 0.02  # seconds; while idle, others wait this long for us to take their deltas


@dataclass
class AsyncWorker(LockstepWorker):
    """As `LockstepWorker`, with chunks in place of rounds. `progress.committed` is the number up to
    which everything is folded into the memory."""

    ledger: DeltaLedger = field(init=False)
    exchange: Mailbox | None = field(default=None, init=False)

    @property
    def idle_wait(self) -> float:
        return _POLL_PERIOD

    def __post_init__(self) -> None:
        # Point to point between processes that are busy at different times: not for NCCL.
        self.config = replace(self.config, backend="gloo")
        self.wire = getattr(torch, self.config.wire)
        self._staging = False
        self._shapes = self.engine.delta_shapes()
        self._sizes = {layer: sum(g.numel() for g in s) for layer, s in self._shapes.items()}
        self.ledger = DeltaLedger(tuple(self._shapes))

    def join(self, store: dist.Store, place: Place, origin: Origin) -> None:
        self._store = store
        super().join(store, place, origin)

    def run(self, number: int, chunks: Sequence[Chunk], share: Share) -> ShareOutcome:
        """Reconstruct one chunk; without a chunk, declare `number` void."""
        oldest_open = number - share.offset
        self.traffic = self._present_exchange().traffic = Traffic()
        self.ledger.begin(oldest_open)
        self.poll()
        if not chunks:
            self._set_void(number, oldest_open)
            return ShareOutcome(True, [])
        if self.ledger.has(number):
            return ShareOutcome(True, [self._read_again(chunks[0])])
        sync = _Merge(self, number, oldest_open)
        try:
            results = self._stage_alone(chunks[0], number, sync)
        except (ReconstructionFailed, OutOfDeviceMemory) as error:
            if not self.ledger.has(number):
                self._set_void(number, oldest_open)
                return ShareOutcome(False, [], at_fault(chunks, error))
            # All of its deltas are out and the others fold them, so the chunk counts.
            results = [ReconstructionFailed(f"{error}; the memory has absorbed the chunk")]
        if not self.ledger.has(number):
            self._set_void(number, oldest_open)
        wait_until_drained(self._present_exchange(), self.poll, self.config.collective_timeout)
        self._fold()
        self.staleness = sync.staleness
        return ShareOutcome(True, results)

    def _read_again(self, chunk: Chunk) -> Result:
        """The answer to a chunk that is settled already."""
        try:
            return self.read(chunk)
        except (ReconstructionFailed, OutOfDeviceMemory) as error:
            return ReconstructionFailed(f"{error}; its number was settled before")

    def _stage_alone(self, chunk: Chunk, number: int, sync: _Merge) -> list[Result]:
        """The chunk's age is counted from what is folded, so decay weighs by chunk number."""
        steps = max(number - self.ledger.folded, 1)
        self._staging = True
        try:
            return self.engine.stage_round([chunk], places=[steps - 1], size=steps, sync=sync)
        finally:
            self.engine.rollback()  # the ledger keeps what was staged
            self._staging = False

    def poll(self) -> None:
        """Take in what others have published; called at every layer and while idle."""
        for note, flat in self._present_exchange().poll(self._sizes):
            self.ledger.begin(note.oldest_open)
            if flat is None:  # the number is void
                self.ledger.set_void(note.number)
            else:
                self._take_in(note.number, note.layer, flat)
        self._fold()

    def _take_in(self, number: int, layer: int, flat: torch.Tensor) -> None:
        """A delta of another process; one that is not finite makes its chunk void, here and
        wherever else it arrives."""
        like = self._shapes[layer]
        delta = unflatten(flat.to(like[0].device), like)
        if delta.is_finite:
            self.ledger.merge(number, layer, delta)
        else:
            log.warning("chunk %d is void: its delta of layer %d is not finite", number, layer)
            self.ledger.set_void(number)

    def publish(self, note: Note, flat: torch.Tensor | None) -> None:
        """Offer a delta to all other processes."""
        self._present_exchange().publish(note, flat)

    def leave(self) -> None:
        if self.exchange is not None:
            self.exchange.close()
        self.exchange = None
        super().leave()

    def _begin_from(self, origin: Origin, store: dist.Store) -> None:
        super()._begin_from(origin, store)
        if origin.kind != "members":
            self.ledger.restart(0, fresh=True)

    def _take_common_memory(self) -> None:
        """The furthest folded memory, and every complete chunk that anybody has pending."""
        epoch = self.progress.epoch
        super()._take_common_memory()
        group, ledger = self._present_group(), self.ledger
        if self.progress.epoch != epoch:
            ledger.restart(0, fresh=True)
        begun = group.maximum(torch.tensor([0 if ledger.fresh else 1]))
        ledger.restart(self.progress.committed, fresh=not begun)
        self._share(ledger.complete(), self._spread)
        self._share(ledger.void(), lambda number, _: ledger.set_void(number))
        self.exchange = Mailbox(group, self._store, self.wire)
        self.traffic = self.exchange.traffic
        self._fold()

    def _share(self, own: list[int], spread: Callable[[int, int], None]) -> None:
        """Call `spread(number, rank)` on every process for every number that anybody has."""
        group, folded = self._present_group(), self.ledger.folded
        newest = int(group.maximum(torch.tensor([max(own, default=folded)])))
        numbers = range(folded + 1, newest + 1)
        if not numbers:
            return
        held = group.gather(torch.tensor([int(n in own) for n in numbers]))
        for number, holders in zip(numbers, held.t().tolist()):
            if any(holders):
                spread(number, holders.index(1))

    def _spread(self, number: int, source: int) -> None:
        """The deltas of a complete chunk, from a process that has them to all others."""
        group, ledger = self._present_group(), self.ledger
        for layer in self._shapes:
            flat = torch.empty(self._sizes[layer])
            if group.rank == source:
                flat = _flat(ledger.deltas(number)[layer]).cpu()
            group.broadcast(flat, source)
            self._take_in(number, layer, flat)

    def _fold(self) -> None:
        if not self._staging:
            self.ledger.fold(self.engine.absorb)
            self.progress = replace(self.progress, committed=self.ledger.folded)

    def _set_void(self, number: int, oldest_open: int) -> None:
        self.ledger.set_void(number)
        self.publish(Note(number, 0, oldest_open, void=True), None)
        self._fold()

    def _present_exchange(self) -> Mailbox:
        if self.exchange is None:
            raise GroupBroken("this process is in no group")
        return self.exchange


@dataclass
class _Merge:
    """The `sync` of one chunk: publish its own, add what others have."""

    worker: AsyncWorker
    number: int
    oldest_open: int
    staleness: int = 0
    """Largest number of earlier chunks that a layer had to do without."""

    def __call__(self, layer: int, gradients: Any) -> Any:
        worker = self.worker
        ledger = worker.ledger
        flat = _flat(gradients).to(worker.wire).float()  # as the others receive it
        own = unflatten(flat, gradients)
        if not own.is_finite:
            raise NotFinite(layer, ())
        ledger.merge(self.number, layer, own)
        worker.publish(Note(self.number, layer, self.oldest_open), flat)
        worker.poll()
        self.staleness = max(self.staleness, ledger.missing(self.number, layer))
        log.debug("chunk %d, layer %d reads %s", self.number, layer, ledger.known(layer))
        others = ledger.others(self.number, layer, worker.engine.decay)
        return own if others is None else own + others


def _flat(gradients: Any) -> torch.Tensor:
    return torch.cat([g.detach().reshape(-1) for g in gradients])
