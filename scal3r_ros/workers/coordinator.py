"""The authority over a group: hosts the rendezvous, plans generations, keeps snapshots.

It computes nothing and is in no collective: while it is away, rounds go on. Everything here is
polled: `hear` signs of life, `step`, announce what `announcement` says. Long work (files, the
store) happens in a thread per operation.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from scal3r_ros.config import DistributedConfig
from scal3r_ros.workers.group import host_store, join_store
from scal3r_ros.workers.membership import (
    BROKEN,
    Membership,
    Origin,
    Patience,
    Plan,
    Report,
)
from scal3r_ros.workers.packing import BadSnapshot, discard, download, upload
from scal3r_ros.workers.snapshots import (
    Snapshot,
    read_snapshot,
    snapshot_key,
    write_snapshot,
)

MEMBERS = Origin()
OF_A_GENERATION = ("generation", "deltas", "memory")
"""First parts of the store's keys whose second part is a generation."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Announcement:
    """What workers have to know."""

    plan: Plan
    origin: Origin
    snapshot_request: int
    address: str
    port: int


@dataclass
class Operation:
    """A save, load or reset under way."""

    deadline: float
    """On the clock of `step`."""
    done: bool = False
    success: bool = False
    message: str = ""
    path: str = ""
    chunks: int = 0

    def finish(self, success: bool, message: str) -> None:
        self.success, self.message, self.done = success, message, True


class Coordinator:
    """State: membership, where the next group's memory comes from, and the newest snapshot."""

    def __init__(self, config: DistributedConfig, expected: int, first_generation: int):
        self.config = config
        self.redone_rounds = 0
        self.snapshot: Snapshot | None = None
        self.refused: list[str] = []
        """One sentence per snapshot file that was damaged."""
        self._store = host_store(config)
        patience = {name: getattr(config, name) for name in Patience.__dataclass_fields__}
        self._membership = Membership(Patience(**patience), expected, first_generation)
        self._origin = MEMBERS
        self._request = 0
        self._stored = 0
        self._broken_generation = 0
        self._swept = 0
        self._saves: deque[tuple[Operation, str, str]] = deque()
        """The first is under way, the others wait for it."""
        self._load: Operation | None = None
        if config.snapshot_path:
            self._read_last(Path(config.snapshot_path))

    def announcement(self) -> Announcement:
        address, port = self.config.address, self._store.port
        return Announcement(self.plan, self._origin, self._request, address, port)

    @property
    def plan(self) -> Plan:
        return self._membership.plan

    @property
    def rejected(self) -> tuple[str, ...]:
        return self._membership.rejected

    @property
    def present(self) -> int:
        """Workers that are there, members or not."""
        return len(self._membership.alive())

    def hear(self, report: Report, snapshot_done: int, now: float) -> None:
        """Take in a sign of life."""
        self._membership.hear(report, now)
        plan = self.plan
        if report.state == BROKEN and self._broken_generation < report.generation:
            self._broken_generation = report.generation
            self.redone_rounds += 1
        if plan.workers[:1] == (report.worker,) and report.generation == plan.generation:
            self._stored = snapshot_done
            self._take_snapshot_when_due(report, now)

    def step(self, now: float) -> Announcement:
        """Advance plan and operations."""
        before = self.plan.generation
        plan = self._membership.step(now)
        if plan.generation != before and plan.workers:
            self._set_origin(plan)
        elif plan.ready:
            if self._origin != MEMBERS:
                self._loaded(plan)
            if plan.generation != self._swept:
                self._sweep(plan.generation)
        self._advance_save(now)
        self._give_up_load_when_due(now)
        return self.announcement()

    def reset(self, now: float) -> Operation:
        """Let all workers start over with an empty memory."""
        self.snapshot = None
        return self._renew(Origin("zero"), "memory reset", now)

    def load(self, now: float, path: str = "", key: str = "") -> Operation:
        """Give all workers the memory of a file, or one that somebody left in the store."""
        operation = Operation(now + self.config.service_timeout)

        def fetch() -> None:
            if key:
                data = self._ask_store(lambda store, wait: download(store, key, wait))
            else:
                data, refused = read_snapshot(Path(path or self.config.snapshot_path))
                self.refused += refused
                operation.message = "; ".join(refused)
            snapshot = Snapshot.of(data)
            reports = self._membership.alive()
            for name in self.plan.workers:
                if name in reports:
                    snapshot.check_weights(reports[name].fingerprint)
            self.snapshot = snapshot
            origin = self._stored_origin(snapshot)
            self._renew(origin, "memory loaded", now, operation, snapshot.chunks)

        self._in_background(operation, fetch)
        return operation

    def save(self, now: float, path: str = "", key: str = "") -> Operation:
        """Fetch the committed memory from rank 0, and write it; one snapshot after the other."""
        operation = Operation(now + self.config.service_timeout)
        if not self.plan.ready:
            operation.finish(False, f"there is no complete group: {self.plan.reason}")
            return operation
        self._saves.append((operation, path or self.config.snapshot_path, key))
        if len(self._saves) == 1:
            self._ask_for_snapshot()
        return operation

    def close(self) -> None:
        """Give the port back."""
        self._store.close()

    def _take_snapshot_when_due(self, report: Report, now: float) -> None:
        every, last = self.config.snapshot_every, self.snapshot.round if self.snapshot else 0
        due = every and report.committed >= last + every
        if due and not self._saves and self.plan.ready:
            self.save(now)

    def _ask_for_snapshot(self) -> None:
        self._request = max(self._request, self._stored) + 1

    def _advance_save(self, now: float) -> None:
        if not self._saves:
            return
        operation, path, key = self._saves[0]
        if operation.done or now > operation.deadline:
            if not operation.done:
                operation.finish(False, "rank 0 did not store its memory in time")
            self._saves.popleft()
            if self._saves:
                self._ask_for_snapshot()
        elif self._stored >= self._request and not operation.message:
            operation.message = "fetching"
            source = snapshot_key(self._request)
            self._in_background(operation, lambda: self._collect(operation, source, path, key))

    def _collect(self, operation: Operation, source: str, path: str, key: str) -> None:
        data = self._ask_store(lambda store, wait: download(store, source, wait))
        self._ask_store(lambda store, wait: discard(store, source, wait))
        snapshot = self.snapshot = Snapshot.of(data)  # a reset may come before the end of this
        if path:
            write_snapshot(Path(path), data)
        if key:
            self._ask_store(lambda store, wait: upload(store, key, data, wait))
        operation.path, operation.chunks = path, snapshot.chunks
        operation.finish(True, f"memory of {snapshot.chunks} chunks saved")

    def _sweep(self, present: int) -> None:
        """Drop what groups before the `present` one have left in the store. Once the present one
        has formed, no process reads it."""

        def is_old(key: str) -> bool:
            kind, _, rest = key.partition("/")
            return kind in OF_A_GENERATION and int(rest.partition("/")[0]) < present

        self._store.server.forget(is_old)
        self._swept = present

    def _give_up_load_when_due(self, now: float) -> None:
        """The group goes on with the memory that its members have."""
        if self._load is not None and now > self._load.deadline:
            self._load.finish(False, f"the group did not form again: {self.plan.reason}")
            self._load, self._origin = None, MEMBERS
            self._membership.renew("the memory was not taken over")

    def _renew(
        self,
        origin: Origin,
        reason: str,
        now: float,
        operation: Operation | None = None,
        chunks: int = 0,
    ) -> Operation:
        operation = operation or Operation(now + self.config.service_timeout)
        operation.chunks = chunks
        self._origin = origin
        if self.plan.workers:
            self._load = operation
            self._membership.renew(reason)
        else:
            operation.finish(True, f"{reason}; the next group starts from it")
        return operation

    def _set_origin(self, plan: Plan) -> None:
        """Workers that all come without a memory continue from the newest snapshot."""
        alive = self._membership.alive()
        fresh = all(alive[name].committed < 0 for name in plan.workers)
        if self._origin.kind == "members" and fresh and self.snapshot is not None:
            self._origin = self._stored_origin(self.snapshot)
        if self._origin.kind != "members":
            self._origin = replace(self._origin, epoch=plan.generation)

    def _stored_origin(self, snapshot: Snapshot) -> Origin:
        key = f"memory/{self.plan.generation}"
        self._ask_store(lambda store, wait: upload(store, key, snapshot.data, wait))
        return Origin("stored", key)

    def _loaded(self, plan: Plan) -> None:
        """The group stands with the memory that was asked for."""
        if self._origin.epoch != plan.generation:
            return  # asked for, but not planned yet
        operation, self._load = self._load, None
        self._origin = MEMBERS
        if operation is not None:
            note = f" ({operation.message})" if operation.message else ""
            operation.finish(True, f"{len(plan.workers)} workers have it{note}")

    def _read_last(self, path: Path) -> None:
        try:
            data, self.refused = read_snapshot(path)
            self.snapshot = Snapshot.of(data)
        except FileNotFoundError:
            return
        except BadSnapshot as error:
            self.refused = [str(error)]

    def _ask_store(self, request: Callable):
        """With a connection of its own, so that no thread waits for another."""
        store = join_store(self.config.address, self._store.port, self.config)
        try:
            return request(store, self.config.store_timeout)
        finally:
            store.close()

    def _in_background(self, operation: Operation, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:
                # The thread's border: whoever asked has to be answered, whatever went wrong.
                log.exception("a snapshot operation failed")
                operation.finish(False, str(error) or type(error).__name__)

        threading.Thread(target=run, name="snapshot", daemon=True).start()
