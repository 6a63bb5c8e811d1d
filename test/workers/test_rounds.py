"""Shares, and what processes agree on after a failure."""

import pytest

from scal3r_ros.workers.rounds import Reached, agree
from scal3r_ros.workers.shares import shares


@pytest.mark.parametrize("size, processes", [(0, 2), (1, 3), (3, 2), (7, 3), (4, 4), (64, 8)])
def test_shares_cover_a_round_once_and_evenly(size, processes):
    parts = shares(size, processes)
    covered = [i for part in parts for i in range(part.offset, part.offset + part.count)]
    assert len(parts) == processes and covered == list(range(size))
    counts = [part.count for part in parts]
    assert max(counts) - min(counts) <= 1
    assert all(part.size == size for part in parts)


def decisions(*reports):
    return [agree(list(reports), rank) for rank in range(len(reports))]


def test_new_processes_have_nothing_to_send():
    assert not any(d.send or d.commit_staged for d in decisions(Reached(0, -1), Reached(0, -1)))


def test_what_nobody_committed_is_dropped():
    found = decisions(Reached(0, 4, staged=5), Reached(0, 4, staged=5), Reached(0, 4))
    assert {(d.committed, d.commit_staged, d.send) for d in found} == {(4, False, False)}


def test_what_one_committed_is_committed_by_all():
    found = decisions(Reached(0, 4, staged=5), Reached(0, 5), Reached(0, 4, staged=5))
    assert [d.commit_staged for d in found] == [True, False, True]
    assert {(d.source, d.committed, d.send) for d in found} == {(1, 5, False)}


def test_a_straggler_gets_a_copy():
    found = decisions(Reached(0, 3, staged=4), Reached(0, 5), Reached(0, 4, staged=5))
    assert [d.commit_staged for d in found] == [False, False, True]
    assert all(d.send and d.source == 1 for d in found)


def test_a_reset_counts_more_than_any_round_before():
    found = decisions(Reached(7, 0), Reached(0, 57, staged=58), Reached(0, -1))
    assert {(d.source, d.epoch, d.committed, d.commit_staged) for d in found} == {(0, 7, 0, False)}
    assert all(d.send for d in found)
