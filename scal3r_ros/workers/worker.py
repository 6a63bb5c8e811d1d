"""The life of one worker: enter the group that was planned, do rounds, answer, start over.

One thread owns the network and the group. Everybody else talks to it through `announce` and `give`,
and reads `status`. Nothing here knows ROS, and torch is imported by that thread only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scal3r_ros.config import DistributedConfig
from scal3r_ros.reconstruct.interface import OutOfDeviceMemory, ReconstructionFailed
from scal3r_ros.records import Chunk, ChunkPrediction
from scal3r_ros.workers.hand_out import Fault
from scal3r_ros.workers.membership import (
    BROKEN,
    COMPUTING,
    IDLE,
    JOINING,
    LEAVING,
    GroupBroken,
)
from scal3r_ros.workers.shares import Share
from scal3r_ros.workers.tasks import Answer, Assignment, Work, WorkerStatus

if TYPE_CHECKING:
    from scal3r_ros.workers.lockstep_worker import LockstepWorker


class Worker:
    """Runs a `LockstepWorker` in a thread of its own."""

    def __init__(
        self,
        name: str,
        config: DistributedConfig,
        make_worker: Callable[[], LockstepWorker],
        answer: Callable[[Answer], None],
    ):
        self.name = name
        self.status = WorkerStatus()
        self.fingerprint = ""
        """Of the weights; empty until they are loaded."""
        self.failure: BaseException | None = None
        """What ended the thread before its time."""
        self._config = config
        self._make_worker = make_worker
        self._answer = answer
        self._changed = threading.Condition()
        self._assignment: Assignment | None = None
        self._inbox: list[Work] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def announce(self, assignment: Assignment) -> None:
        """Tell the newest plan; the worker follows it between two rounds."""
        with self._changed:
            self._assignment = assignment
            self._changed.notify()

    def give(self, work: Work) -> None:
        """Hand over a chunk; its answer comes through the callback."""
        with self._changed:
            self._inbox.append(work)
            self._changed.notify()

    def stop(self, timeout: float) -> bool:
        """Leave between two rounds; False if the present one takes longer than `timeout`."""
        with self._changed:
            self._stopping = True
            self.status = replace(self.status, state=LEAVING)
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._worker = self._make_worker()
            self.fingerprint = self._worker.engine.fingerprint
            self._tell(message="waiting for a group", memory=self._worker.summary())
            while not self._stopping:
                self._step()
            self._worker.leave()
        except Exception as error:
            # The thread's border: the owner sees the reason and ends the process' work.
            self.failure = error

    def _step(self) -> None:
        """Whatever comes first: a new plan, a snapshot to store, or a whole share of a round."""
        with self._changed:
            self._changed.wait_for(self._has_something_to_do, self._worker.idle_wait)
            plan, works = self._assignment, self._ready_share()
        if self._stopping or plan is None:
            return
        if self._has_to_join(plan):
            self._join(plan)
        elif works:
            self._refuse_or_do(works)
        elif self._has_to_store(plan):
            self._store_snapshot(plan)
        elif self._worker.group is not None:
            self._poll()

    def _has_something_to_do(self) -> bool:
        plan = self._assignment
        return self._stopping or (
            plan is not None
            and (self._has_to_join(plan) or self._has_to_store(plan) or bool(self._complete()))
        )

    def _has_to_join(self, plan: Assignment) -> bool:
        return plan.generation > self.status.generation and self.name in plan.workers

    def _has_to_store(self, plan: Assignment) -> bool:
        return (
            plan.snapshot_request > self.status.snapshot_done
            and self._worker.group is not None
            and plan.generation == self.status.generation
            and plan.workers[0] == self.name
        )

    def _complete(self) -> list[Work]:
        """The oldest share of which every chunk has come."""
        for first in self._inbox:
            key = (first.generation, first.round)
            works = [w for w in self._inbox if (w.generation, w.round) == key]
            if len(works) >= max(first.share, 1) or first.generation != self.status.generation:
                return works
        return []

    def _ready_share(self) -> list[Work]:
        if self._assignment is None or self._has_to_join(self._assignment):
            return []
        works = self._complete()
        self._inbox = [w for w in self._inbox if w not in works]
        return works

    def _join(self, plan: Assignment) -> None:
        rank, size = plan.workers.index(self.name), len(plan.workers)
        self._tell(state=JOINING, rank=rank, message=f"entering generation {plan.generation}")
        try:
            self._worker.enter(self.name, plan)
        except GroupBroken as error:
            self._tell(state=BROKEN, generation=plan.generation, message=str(error))
            return
        self._tell(
            state=IDLE,
            generation=plan.generation,
            committed=self._worker.progress.committed,
            memory=self._worker.summary(),
            message=f"rank {rank} of {size}",
        )

    def _poll(self) -> None:
        try:
            self._worker.poll()
        except GroupBroken as error:
            self._worker.leave()
            self._tell(state=BROKEN, message=str(error))

    def _refuse_or_do(self, works: list[Work]) -> None:
        first = works[0]
        if not first.contribute:
            self._read(works)
        elif first.generation != self.status.generation or self._worker.group is None:
            self._retry(works, f"{self.name} is in generation {self.status.generation}, not in "
                               f"{first.generation}")  # fmt: skip
        else:
            self._round(works)

    def _read(self, works: list[Work]) -> None:
        before = self.status.state
        self._tell(state=COMPUTING)
        for work in works:
            self._answer(Answer(work, self._result_of(work.chunk)))
        self._tell(state=before)

    def _result_of(
        self, chunk: Chunk | None
    ) -> ChunkPrediction | ReconstructionFailed | OutOfDeviceMemory:
        if chunk is None:
            return ReconstructionFailed("asked to read without a chunk")
        try:
            return self._worker.read(chunk)
        except (ReconstructionFailed, OutOfDeviceMemory) as error:
            return error

    def _round(self, works: list[Work]) -> None:
        works = sorted(works, key=lambda w: w.place)
        chunks = [w.chunk for w in works if w.chunk is not None]
        first = works[0]
        self._tell(state=COMPUTING, round=first.round)
        started = time.monotonic()
        try:
            share = Share(first.place, len(chunks), first.size)
            outcome = self._worker.run(first.round, chunks, share)
        except GroupBroken as error:
            self._worker.leave()
            self._retry(works, str(error))
            self._tell(state=BROKEN, message=str(error))
            return
        if outcome.committed:
            for work, result in zip(works, outcome.results):
                self._answer(Answer(work, result, absorbed=True))
        else:
            self._blame_or_retry(works, outcome.at_fault)
        traffic = self._worker.traffic
        self._tell(
            state=IDLE,
            committed=self._worker.progress.committed,
            staleness=self._worker.staleness,
            sync_bytes=traffic.bytes_sent,
            sync_seconds=traffic.seconds,
            round_seconds=time.monotonic() - started,
            memory=self._worker.summary(),
        )

    def _blame_or_retry(self, works: list[Work], at_fault: Mapping[int, Fault]) -> None:
        innocent = []
        for work in works:
            if work.chunk is not None and work.chunk.index in at_fault:
                self._answer(Answer(work, at_fault[work.chunk.index]))
            else:
                innocent.append(work)
        self._retry(innocent, "another chunk of the round could not be absorbed")

    def _retry(self, works: list[Work], reason: str) -> None:
        for work in works:
            if work.chunk is not None:
                self._answer(Answer(work, ReconstructionFailed(reason), retry=True))

    def _store_snapshot(self, plan: Assignment) -> None:
        request = plan.snapshot_request
        try:
            self._worker.poll()
            self._worker.store_memory(plan)
            message = f"stored snapshot {request}"
        except GroupBroken as error:
            message = f"snapshot {request} could not be stored: {error}"
        self._tell(snapshot_done=request, message=message)

    def _tell(self, **changes: Any) -> None:
        with self._changed:
            if self._stopping:
                changes["state"] = LEAVING
            self.status = replace(self.status, **changes)
