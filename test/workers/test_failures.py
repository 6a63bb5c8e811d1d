"""Workers that die or stop at every point of a round: nothing hangs, nothing is lost or doubled."""

import signal

import pytest
from agreement import (
    assert_predictions_equal,
    assert_same_bits,
    assert_states_equal,
    predictions,
)
from crew import Crew, Hazard, make_chunk, tiny_engine

from scal3r_ros.workers.membership import GroupBroken
from scal3r_ros.workers.rounds import Reached

CHUNKS = [make_chunk(0), make_chunk(1), make_chunk(2)]
NEXT = [make_chunk(3), make_chunk(4)]


@pytest.fixture(scope="module")
def undisturbed():
    """Predictions of both rounds and the memory after them, without any failure."""
    alone = tiny_engine()
    results = alone.reconstruct_round(CHUNKS) + alone.reconstruct_round(NEXT)
    return results, alone.state().arrays


@pytest.fixture
def crew():
    crew = Crew("a", "b", "c")
    crew.form("a", "b", "c")
    yield crew
    crew.close()


HAZARDS = {
    "killed before the first collective": Hazard("before", 0),
    "killed inside the second": Hazard("inside", 1),
    "killed after the last memory layer": Hazard("after", 2),
    "stopped before the second": Hazard("before", 1, signal.SIGSTOP),
    "stopped before the vote": Hazard("before", 3, signal.SIGSTOP),
}


@pytest.mark.parametrize("hazard", HAZARDS.values(), ids=HAZARDS.keys())
def test_survivors_redo_the_round_from_the_last_commit(crew, hazard, undisturbed):
    delay = {"a": Hazard("late", hazard.exchange)} if hazard.when == "inside" else {}
    answers = crew.round(1, CHUNKS, c=hazard, **delay)
    assert answers["c"] is None
    assert isinstance(answers["a"], GroupBroken) and isinstance(answers["b"], GroupBroken)
    crew.form("a", "b")
    found = predictions(crew.round(2, CHUNKS)) + predictions(crew.round(3, NEXT))
    expected, memory = undisturbed
    assert_predictions_equal(found, expected)
    assert_same_bits(crew.states())
    assert_states_equal(crew.ask("a", "state"), memory)


def test_killed_after_the_commit_costs_only_its_own_answer(crew, undisturbed):
    """The memory has the round, so the lost answer is computed again without a trace."""
    answers = crew.round(1, CHUNKS, c=Hazard("voted"))
    assert answers["c"] is None
    assert answers["a"].committed and answers["b"].committed
    progress = crew.form("a", "b")
    assert all(p.committed == 1 for p in progress.values())
    again = crew.ask("a", "read", CHUNKS[2])
    found = [*predictions({n: answers[n] for n in "ab"}), again]
    found += predictions(crew.round(2, NEXT))
    expected, memory = undisturbed
    assert_predictions_equal(found, expected)
    assert_states_equal(crew.ask("b", "state"), memory)


def test_a_round_that_anybody_committed_is_committed_by_all(crew, undisturbed):
    """A process that staged the round but never heard the vote commits when the group re-forms."""
    answers = crew.round(1, CHUNKS, b=Hazard("lost vote", 3))
    assert answers["a"].committed and isinstance(answers["b"], GroupBroken)
    assert crew.ask("b", "progress") == Reached(0, 0, staged=1)
    progress = crew.form("b", "a")
    assert progress["a"] == progress["b"] == Reached(0, 1)
    assert_same_bits(crew.states())
    found = predictions(crew.round(2, NEXT))
    assert_predictions_equal(found, undisturbed[0][3:])
    assert_states_equal(crew.ask("b", "state"), undisturbed[1])


def test_a_newcomer_and_a_returning_worker_get_the_common_memory(crew, undisturbed):
    crew.round(1, CHUNKS)
    crew.form("a", "b")
    crew.round(2, NEXT)
    crew.hire("d")
    progress = crew.form("d", "c", "a", "b")
    assert all(p == Reached(0, 2) for p in progress.values())
    assert_same_bits(crew.states())
    assert_states_equal(crew.ask("d", "state"), undisturbed[1])


def test_a_group_that_does_not_form_says_so(crew):
    crew.processes["c"].kill()
    crew.processes["c"].join()
    crew.generation += 1
    for rank, name in enumerate("ab"):
        crew.tell(name, "join", (crew.generation, rank, 3), ("members", "", 0))
    for name in "ab":
        answer = crew.answer(name)
        assert isinstance(answer, GroupBroken)
        assert "did not form within 10 s" in str(answer)
    assert all(isinstance(p, Reached) for p in crew.form("a", "b").values())


def test_one_process_that_fails_its_chunk_takes_the_round_back_everywhere(crew, undisturbed):
    answers = crew.round(1, CHUNKS, c=Hazard("out of memory", 1))
    assert not any(outcome.committed for outcome in answers.values())
    assert "fit" in str(answers["c"].at_fault[2]) and not answers["a"].at_fault
    states = crew.states()
    assert all(int(state["chunks"]) == 0 for state in states.values())
    found = predictions(crew.round(2, CHUNKS))
    assert_predictions_equal(found, undisturbed[0][:3])


def test_gradients_that_are_not_finite_are_blamed_on_their_chunk_alone(crew, undisturbed):
    chunks = [*CHUNKS, *NEXT]
    answers = crew.round(1, chunks, c=Hazard("gradients", 1))  # of chunks 3 and 4
    assert not any(outcome.committed for outcome in answers.values())
    assert [list(answers[name].at_fault) for name in "abc"] == [[], [], [4]]
    assert "did not absorb it" in str(answers["c"].at_fault[4])
    rest = predictions(crew.round(2, chunks[:4]))
    alone = tiny_engine()
    assert_predictions_equal(rest, alone.reconstruct_round(chunks[:4]))
    assert_same_bits(crew.states())
    assert_states_equal(crew.ask("b", "state"), alone.state().arrays)


def test_cameras_that_are_not_finite_cost_their_prediction_and_not_the_round(crew, undisturbed):
    answers = crew.round(1, CHUNKS, c=Hazard("cameras"))
    assert all(outcome.committed for outcome in answers.values())
    assert "has absorbed" in str(answers["c"].results[0])
    crew.round(2, NEXT)
    assert_states_equal(crew.ask("a", "state"), undisturbed[1])


def test_reset_and_a_stored_memory_reach_every_process(crew):
    from scal3r_ros.workers.packing import upload

    crew.round(1, CHUNKS)
    before, packed = crew.ask("b", "state"), crew.ask("b", "memory")
    crew.form("a", "b", "c", kind="zero")
    assert all(int(state["chunks"]) == 0 for state in crew.states().values())
    crew.round(2, NEXT)
    upload(crew.store, "kept", packed, 5.0)
    crew.form("c", "b", "a", kind="stored", key="kept")
    for name, state in crew.states().items():
        assert_same_bits({"before": before, name: state})
