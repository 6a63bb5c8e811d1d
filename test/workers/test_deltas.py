"""The set of deltas: order and repetition change nothing, gaps wait, voids do not."""

import itertools
import random

import pytest
import torch

from scal3r_ros.workers.deltas import DeltaLedger

LAYERS = (1, 2)


class Number(float):
    """A delta that is one number."""

    def scaled(self, factor):
        return Number(self * factor)

    def __add__(self, other):
        return Number(float(self) + float(other))


def absorbed(ledger):
    """What folding hands over, in order."""
    out = []
    ledger.fold(lambda deltas: out.append(dict(deltas)))
    return out


@pytest.mark.parametrize("seed", range(20))
def test_any_order_with_repetitions_folds_the_same_in_the_same_order(seed):
    deltas = {
        (n, layer): torch.randn(4, generator=torch.Generator().manual_seed(10 * n + layer))
        for n, layer in itertools.product(range(1, 7), LAYERS)
    }
    keys = [*deltas, *deltas, *deltas]
    random.Random(seed).shuffle(keys)
    ledger, folded = DeltaLedger(LAYERS), []
    ledger.begin(1)
    new = 0
    for number, layer in keys:
        new += ledger.merge(number, layer, deltas[number, layer])
        folded += absorbed(ledger)
    assert new == len(deltas)
    assert [d[1].tolist() for d in folded] == [deltas[n, 1].tolist() for n in range(1, 7)]


def test_a_gap_waits_and_a_void_number_is_skipped():
    ledger = DeltaLedger(LAYERS)
    ledger.begin(1)
    for layer in LAYERS:
        ledger.merge(3, layer, Number(3))
    ledger.merge(2, 1, Number(2))
    assert absorbed(ledger) == [] and ledger.missing(4, 1) == 1 and ledger.missing(4, 2) == 2
    ledger.set_void(1)
    assert absorbed(ledger) == [] and ledger.folded == 1
    ledger.set_void(2)
    assert absorbed(ledger) == [{1: 3.0, 2: 3.0}] and ledger.folded == 3
    assert not ledger.merge(2, 2, Number(2)) and not ledger.merge(3, 1, Number(3))


def test_others_are_weighted_by_their_age():
    ledger = DeltaLedger(LAYERS)
    ledger.begin(1)
    for number in (1, 2, 4):
        ledger.merge(number, 1, Number(10**number))
    assert ledger.others(3, 1, decay=0.5) == 10 * 0.25 + 100 * 0.5 + 10000
    assert ledger.others(3, 2, decay=0.5) is None


def test_a_new_group_keeps_whole_chunks_only():
    ledger = DeltaLedger(LAYERS)
    ledger.begin(1)
    for layer in LAYERS:
        ledger.merge(3, layer, Number(3))
    ledger.merge(2, 1, Number(2))
    ledger.restart(folded=1, fresh=False)
    assert ledger.complete() == [3] and not ledger.has(2)
    ledger.restart(folded=3, fresh=False)
    assert ledger.complete() == []


def test_a_fresh_memory_begins_where_the_chunks_do():
    ledger = DeltaLedger(LAYERS)
    ledger.restart(0, fresh=True)
    ledger.begin(58)
    ledger.begin(40)
    assert ledger.folded == 57
