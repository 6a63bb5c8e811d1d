"""Every chunk is absorbed once or not at all, whatever becomes of the attempts at it."""

from collections import Counter

import pytest
from crew import make_chunk, tiny_engine

from scal3r_ros.reconstruct.interface import OutOfDeviceMemory, ReconstructionFailed
from scal3r_ros.records import ChunkPrediction
from scal3r_ros.workers.hand_out import Attempt, WorkersUnavailable, hand_out
from scal3r_ros.workers.lockstep_worker import at_fault

CHUNKS = [make_chunk(i) for i in range(3)]


class OneWorker:
    """Hands around a real network in this process. Each attempt meets the next of `mishaps`."""

    def __init__(self, *mishaps: str, all_or_none: bool = True):
        self.engine, self.all_or_none = tiny_engine(), all_or_none
        self.mishaps = list(mishaps)
        self.absorbed: Counter[int] = Counter()
        self.given_up: list[int] = []
        self.reads = 0
        self._kept = False

    def attempt(self, chunks):
        mishap = self.mishaps.pop(0) if self.mishaps else ""
        self._kept = False
        if mishap == "nobody there":
            raise WorkersUnavailable("no worker came")
        if mishap == "lost before":
            return Attempt(reason="the group broke")
        if self.all_or_none:
            return self._together(chunks, mishap)
        return self._one_by_one(chunks, mishap)

    def _together(self, chunks, mishap):
        if mishap == "too large":
            return Attempt(at_fault=at_fault(chunks[1:2], OutOfDeviceMemory("does not fit")))
        if mishap == "blame":
            return Attempt(at_fault=at_fault(chunks[:1], ReconstructionFailed("not finite")))
        results = dict(zip([c.index for c in chunks], self.engine.stage_round(chunks)))
        self.engine.commit()
        self.absorbed.update(list(results))
        self._kept = True
        if mishap == "answers lost":
            return Attempt(reason="an answer did not come")
        if mishap == "one answer lost":
            results.popitem()
        if mishap == "heads fail":
            results[chunks[0].index] = ReconstructionFailed("the cameras are not finite")
        return Attempt(results)

    def _one_by_one(self, chunks, mishap):
        results, blamed = {}, {}
        for place, chunk in enumerate(chunks):
            if place == 0 and mishap == "too large":
                blamed |= at_fault([chunk], OutOfDeviceMemory("does not fit"))
                continue
            again = self.absorbed[chunk.index] > 0
            result = self.engine.reconstruct(chunk, contribute=not again)
            self.absorbed[chunk.index] += not again
            if place == 0 and mishap == "heads fail":
                result = ReconstructionFailed("the cameras are not finite")
            results[chunk.index] = result
        if mishap == "one answer lost":
            results.popitem()
        return Attempt({} if mishap == "answers lost" else results, blamed)

    def has_absorbed(self):
        assert self.all_or_none
        return self._kept

    def read(self, chunk):
        self.reads += 1
        return self.engine.reconstruct(chunk, contribute=False)

    def give_up(self, chunks):
        self.given_up += [chunk.index for chunk in chunks]


def good(results):
    return [isinstance(result, ChunkPrediction) for result in results]


MISHAPS = ["", "lost before", "answers lost", "one answer lost", "heads fail"]


@pytest.mark.parametrize("all_or_none", [True, False])
@pytest.mark.parametrize("first", MISHAPS)
@pytest.mark.parametrize("second", MISHAPS)
def test_every_chunk_is_absorbed_exactly_once(first, second, all_or_none):
    hands = OneWorker(first, second, all_or_none=all_or_none)
    results = hand_out(hands, CHUNKS, max_attempts=3)
    assert hands.absorbed == Counter({0: 1, 1: 1, 2: 1})
    assert hands.engine.memory.chunks == 3 and not hands.given_up
    assert len(results) == 3 and sum(good(results)) >= 2


@pytest.mark.parametrize("all_or_none", [True, False])
def test_a_failed_prediction_of_an_absorbed_chunk_is_its_result(all_or_none):
    hands = OneWorker("heads fail", all_or_none=all_or_none)
    assert good(hand_out(hands, CHUNKS, max_attempts=3)) == [False, True, True]
    assert hands.engine.memory.chunks == 3 and not hands.reads


def test_blame_leaves_out_the_chunk_at_fault_only():
    hands = OneWorker("blame", "lost before", "answers lost")
    results = hand_out(hands, CHUNKS, max_attempts=3)
    assert good(results) == [False, True, True] and "not finite" in str(results[0])
    assert hands.absorbed == Counter({1: 1, 2: 1}) and hands.reads == 2


def test_too_large_is_raised_only_while_nothing_is_absorbed():
    hands = OneWorker("too large")
    with pytest.raises(OutOfDeviceMemory):
        hand_out(hands, CHUNKS, max_attempts=3)
    assert not hands.absorbed and hands.given_up == [0, 1, 2]
    hands = OneWorker("too large", all_or_none=False)
    assert good(hand_out(hands, CHUNKS, max_attempts=3)) == [False, True, True]
    assert hands.absorbed == Counter({1: 1, 2: 1})


def test_attempts_that_settle_nothing_are_counted():
    hands = OneWorker(*["lost before"] * 3)
    results = hand_out(hands, CHUNKS, max_attempts=3)
    assert good(results) == [False] * 3 and "the group broke" in str(results[0])
    assert hands.given_up == [0, 1, 2] and not hands.mishaps


def test_results_are_kept_when_the_workers_go_away():
    hands = OneWorker("blame", "nobody there")
    results = hand_out(hands, CHUNKS, max_attempts=3)
    assert "not finite" in str(results[0])
    assert all("no worker came" in str(result) for result in results[1:])
    assert hands.given_up == [1, 2]
