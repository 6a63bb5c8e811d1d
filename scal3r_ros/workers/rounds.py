"""Rounds in lockstep: when a round counts, and what holds after a failure.

A round is some consecutive chunks that see one memory and each other, and that the memory absorbs
together or not at all; in one process too, where it needs none of this. It has three steps on
every process: `stage` its chunks (gradients are exchanged at every memory layer), vote, commit.
The vote is a collective, so a process that has left it knows that every process has staged the
whole round. A process whose vote broke off does not know whether others went on to commit; it
keeps the staged round, and `agree` settles it when the next group forms: if anybody committed,
everybody does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scal3r_ros.workers.group import Group


@dataclass(frozen=True)
class Reached:
    """How far one process' memory has come. Ordered: a larger one has seen more."""

    epoch: int
    """Generation in which the memory was last set: reset, loaded or restored."""
    committed: int
    """Last round that was committed, -1 for a process whose memory means nothing yet."""
    staged: int = -1
    """Round that is staged completely but whose vote has not come back, or -1."""


@dataclass(frozen=True)
class Agreement:
    """What a process has to do with its memory when a group forms."""

    source: int
    """Rank whose memory is the common one."""
    epoch: int
    committed: int
    commit_staged: bool
    """Commit the staged round; otherwise it is dropped."""
    send: bool
    """Whether any rank needs the source's memory."""


def agree(reports: list[Reached], rank: int) -> Agreement:
    """The common memory of processes that have `reports` (by rank), as seen by `rank`.

    The furthest committed memory wins. Processes that have staged exactly that round commit it;
    the others need a copy of it.
    """
    epoch, committed = max((r.epoch, r.committed) for r in reports)

    def reaches(r: Reached) -> bool:
        return r.epoch == epoch and committed in (r.committed, r.staged)

    source = next(i for i, r in enumerate(reports) if (r.epoch, r.committed) == (epoch, committed))
    own = reports[rank]
    finishes = own.epoch == epoch and own.committed < committed == own.staged
    return Agreement(source, epoch, committed, finishes, not all(map(reaches, reports)))


def exchange_progress(group: Group, own: Reached) -> list[Reached]:
    """Every rank's progress, on every rank."""
    table = group.gather(torch.tensor([own.epoch, own.committed, own.staged], dtype=torch.int64))
    return [Reached(*row) for row in table.tolist()]


def vote(group: Group, round_number: int, failed: bool) -> bool:
    """Whether every process staged this round; the same answer everywhere."""
    ballot = torch.tensor([round_number, -round_number, int(failed)], device=group.device)
    newest, oldest, failures = group.maximum(ballot).tolist()
    if newest != -oldest:
        raise RuntimeError(
            f"processes are in different rounds, {-oldest} to {newest}; a chunk of another round "
            f"was sent to one of them"
        )
    return not failures
