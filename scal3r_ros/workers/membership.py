"""Decides who is in the group: it is given signs of life and the time, and returns one plan for
each generation. It does no I/O.

A new generation is planned when a worker comes, leaves, falls silent, hangs in a round, or reports
that its group broke. Workers change generation between rounds; the plan waits until all of them
have said so, and is replaced when they cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

IDLE, COMPUTING, JOINING, BROKEN, LEAVING = "idle", "computing", "joining", "broken", "leaving"
_UNFIT = (COMPUTING, LEAVING)
"""States in which a worker that was dropped stays out, whatever signs of life it gives."""


class GroupBroken(RuntimeError):
    """A member is gone or too late; the group cannot be used any more."""


@dataclass(frozen=True)
class Report:
    """One sign of life of a worker."""

    worker: str
    """Fully qualified node name."""
    fingerprint: str = ""
    """Of its weights; all members need the same."""
    state: str = IDLE
    """`idle`, `computing`, `joining` a group, `broken` (its group failed), or `leaving`."""
    generation: int = 0
    """Group it is in, or was in last; 0 before the first."""
    committed: int = -1
    """Last committed round, -1 when its memory means nothing yet."""


@dataclass(frozen=True)
class Origin:
    """What a new group's memory is."""

    kind: str = "members"
    """`members`: the furthest one among them. `zero`: empty. `stored`: the one in the store."""
    key: str = ""
    """Where the stored one lies."""
    epoch: int = 0
    """Generation in which a `zero` or `stored` memory was asked for."""


@dataclass(frozen=True)
class Plan:
    """One generation of the group."""

    generation: int
    workers: tuple[str, ...] = ()
    """In rank order."""
    ready: bool = False
    """Every member has entered it."""
    reason: str = "no worker has come yet"


@dataclass
class _Member:
    report: Report
    seen: float
    """When its last sign of life came, seconds."""
    since: float
    """When it entered its present state."""


@dataclass(frozen=True)
class Patience:
    """Bounds of the waits, seconds; see the options of the same names."""

    heartbeat_timeout: float
    settle_time: float
    round_timeout: float
    connect_timeout: float
    collective_timeout: float


class Membership:
    """Keeps the present plan; call `hear` for every sign of life and `step` at short intervals."""

    def __init__(self, patience: Patience, expected: int, first_generation: int):
        self.plan = Plan(first_generation)
        self._patience = patience
        self._expected = expected
        self._members: dict[str, _Member] = {}
        self._dropped: dict[str, tuple[str, int]] = {}
        self._rejected: set[str] = set()
        self._changed_at: float | None = None
        self._planned_at = 0.0
        self._renewal = ""

    def hear(self, report: Report, now: float) -> None:
        """Take in a sign of life."""
        if self._dropped.get(report.worker) == (report.state, report.generation):
            return  # it still computes what it did not finish in time, or still leaves
        self._dropped.pop(report.worker, None)
        known = self._members.get(report.worker)
        if known is None:
            self._changed_at = now
        since = known.since if known and known.report.state == report.state else now
        self._members[report.worker] = _Member(report, now, since)

    def renew(self, reason: str) -> None:
        """Ask for a new generation of the same members, for a reset or another memory."""
        self._renewal = reason

    def step(self, now: float) -> Plan:
        """Drop who is gone, and plan anew when the members differ from the plan."""
        reasons = self._drop_lost(now)
        self._skip_generations_of_others()
        wanted = self._wanted()
        if self._waits_for_more(wanted, now):
            return self.plan
        reasons += self._broken_or_late(now)
        if self._renewal and wanted:
            reasons.append(self._renewal)
        if set(wanted) != set(self.plan.workers) or (reasons and wanted):
            self._plan(wanted, now, reasons)
        elif not self.plan.ready and wanted and self._all_entered():
            self.plan = replace(self.plan, ready=True)
        return self.plan

    def alive(self) -> dict[str, Report]:
        """Last report of everybody who is there, members or not."""
        return {name: member.report for name, member in self._members.items()}

    @property
    def rejected(self) -> tuple[str, ...]:
        """Workers whose weights differ from those of the others."""
        return tuple(sorted(self._rejected))

    def _drop_lost(self, now: float) -> list[str]:
        reasons = []
        for name, member in list(self._members.items()):
            reason = self._why_lost(member, now)
            if reason:
                del self._members[name]
                if member.report.state in _UNFIT:
                    self._dropped[name] = (member.report.state, member.report.generation)
                if name in self.plan.workers:
                    reasons.append(f"{name} {reason}")
        return reasons

    def _why_lost(self, member: _Member, now: float) -> str:
        patience, report = self._patience, member.report
        if now - member.seen > patience.heartbeat_timeout:
            return f"was silent for {patience.heartbeat_timeout:g} s"
        if report.state == LEAVING:
            return "left"
        if report.state == COMPUTING and now - member.since > self._round_bound():
            return f"did not finish its round within {self._round_bound():g} s"
        return ""

    def _round_bound(self) -> float:
        """Once one member's group broke, the others have only as long as a collective may last."""
        broken = any(self._reports_broken(name) for name in self.plan.workers)
        bound = self._patience.round_timeout
        return min(bound, 2 * self._patience.collective_timeout) if broken else bound

    def _reports_broken(self, name: str) -> bool:
        member = self._members.get(name)
        return (
            member is not None
            and member.report.state == BROKEN
            and member.report.generation == self.plan.generation
        )

    def _skip_generations_of_others(self) -> None:
        """Workers of a group that somebody else planned, before a restart, get a newer one."""
        newest = max((m.report.generation for m in self._members.values()), default=0)
        if newest > self.plan.generation:
            self.plan = replace(self.plan, generation=newest, workers=(), ready=False)

    def _wanted(self) -> list[str]:
        """Names of those who can be members: present ones first, in their order, then by name."""
        order = {name: rank for rank, name in enumerate(self.plan.workers)}
        names = sorted(self._members, key=lambda n: (order.get(n, len(order)), n))
        if not names:
            return []
        leader = max(names, key=lambda n: (self._members[n].report.committed, -names.index(n)))
        fingerprint = self._members[leader].report.fingerprint
        self._rejected = {n for n in names if self._members[n].report.fingerprint != fingerprint}
        return [n for n in names if n not in self._rejected]

    def _waits_for_more(self, wanted: list[str], now: float) -> bool:
        """Let newcomers gather, unless all who are expected are there."""
        if self._changed_at is None or len(wanted) == self._expected:
            self._changed_at = None
            return False
        if now - self._changed_at < self._patience.settle_time:
            return True
        self._changed_at = None
        return False

    def _broken_or_late(self, now: float) -> list[str]:
        """Reasons to form the same members again."""
        members = [n for n in self.plan.workers if n in self._members]
        broken = [n for n in members if self._reports_broken(n)]
        if broken:
            busy = any(self._members[n].report.state == COMPUTING for n in members)
            since = min(self._members[n].since for n in broken)
            quiet = any(self._members[n].seen < since for n in members)
            return [] if busy or quiet else [f"the group broke at {', '.join(broken)}"]
        if self.plan.ready:
            lost = [n for n in members if self._members[n].report.generation == 0]
            return [f"{', '.join(lost)} started again"] if lost else []
        late = self._patience.connect_timeout + self._patience.settle_time
        if self.plan.workers and now - self._planned_at > late:
            return [f"not all members came within {late:g} s"]
        return []

    def _all_entered(self) -> bool:
        reports = [self._members[n].report for n in self.plan.workers]
        return all(
            r.generation == self.plan.generation and r.state in (IDLE, COMPUTING) for r in reports
        )

    def _plan(self, workers: Iterable[str], now: float, reasons: list[str]) -> None:
        come = sorted(set(workers) - set(self.plan.workers))
        if come:
            reasons = [*reasons, f"{', '.join(come)} came"]
        self.plan = Plan(
            self.plan.generation + 1, tuple(workers), reason="; ".join(reasons) or "first group"
        )
        self._planned_at = now
        self._renewal = ""
