"""Asynchronous workers as real processes: no barrier, every chunk contributes exactly once."""

import signal
import time

import numpy as np
import pytest
from agreement import assert_predictions_equal, assert_same_bits, assert_states_equal
from crew import PATIENCE, Crew, Hazard, make_chunk, tiny_engine

from scal3r_ros.workers.membership import GroupBroken
from scal3r_ros.workers.rounds import Reached

FIRST_LAYER = tuple(f"bucket0.layer1.{name}" for name in ("w0", "w1", "w2"))


@pytest.fixture
def hire():
    crews = []

    def hire(*names, **options):
        crews.append(Crew(*names, policy="async", **options))
        crews[-1].form(*names)
        return crews[-1]

    yield hire
    for crew in crews:
        crew.close()


def at_rest(crew, newest):
    """Memories, once every process has folded all up to number `newest`."""
    deadline = time.monotonic() + PATIENCE
    while {crew.ask(name, "progress").committed for name in crew.members} != {newest}:
        assert time.monotonic() < deadline, f"not all have folded {newest} chunks"
        time.sleep(0.05)  # the processes take in deltas while they are asked nothing
    return crew.states()


def assert_first_layer_is_exact(state, chunks):
    """Its gradients depend on nothing but the images, so their sum is that of a batch."""
    whole = tiny_engine()
    whole.reconstruct_round(chunks)
    expected = whole.state().arrays
    assert int(state["chunks"]) == len(chunks)
    assert_states_equal({n: state[n] for n in FIRST_LAYER}, {n: expected[n] for n in FIRST_LAYER})


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_one_after_the_other_is_the_stream(hire, decay):
    """Without overlap in time there is no staleness, whoever does the chunk."""
    crew = hire("a", "b", decay=decay)
    alone = tiny_engine(decay=decay)
    for number in range(1, 6):
        crew.start("ab"[number % 2], number, make_chunk(number), oldest_open=number)
        found = crew.answer("ab"[number % 2]).results
        assert_predictions_equal(found, [alone.reconstruct(make_chunk(number))])
        assert crew.ask("ab"[number % 2], "staleness") == 0
    states = at_rest(crew, 5)
    assert_same_bits(states)
    assert_states_equal(states["a"], alone.state().arrays)


def test_at_once_everybody_ends_with_the_same_memory(hire):
    crew = hire("a", "b", "c")
    chunks = [make_chunk(i) for i in range(1, 7)]
    for oldest in (1, 4):
        for place, name in enumerate("abc"):
            crew.start(name, oldest + place, chunks[oldest + place - 1], oldest)
        for name in "abc":
            assert crew.answer(name).committed
            assert crew.ask(name, "staleness") <= 2
    states = at_rest(crew, 6)
    assert_same_bits(states)
    assert_first_layer_is_exact(states["a"], chunks)


def test_a_chunk_that_is_sent_twice_contributes_once(hire):
    crew = hire("a", "b")
    for name in "ab":
        crew.start(name, 1, make_chunk(1), oldest_open=1)
        assert len(crew.answer(name).results) == 1
    states = at_rest(crew, 1)
    assert_same_bits(states)
    assert_first_layer_is_exact(states["b"], [make_chunk(1)])


@pytest.mark.parametrize(
    "hazard",
    [Hazard("after", 0), Hazard("after", 2), Hazard("before", 1, signal.SIGSTOP)],
    ids=["killed in the middle", "killed when all was sent", "stopped"],
)
def test_a_lost_worker_is_replaced_and_nothing_counts_twice(hire, hazard):
    crew = hire("a", "b", "c")
    chunks = [make_chunk(i) for i in range(1, 6)]
    crew.start("c", 3, chunks[2], 1, hazard=hazard)
    crew.start("a", 1, chunks[0], 1)
    crew.start("b", 2, chunks[1], 1)
    answers = {name: crew.answer(name) for name in "abc"}
    assert answers["c"] is None
    crew.form("a", "b")
    for name, number in (("a", 1), ("b", 2)):
        if isinstance(answers[name], GroupBroken):
            crew.start(name, number, chunks[number - 1], 1)
            assert crew.answer(name).results
    crew.start("a", 3, chunks[2], 1)
    assert crew.answer("a").results
    for name, number in (("a", 4), ("b", 5)):
        crew.start(name, number, chunks[number - 1], 4)
    assert crew.answer("a").results and crew.answer("b").results
    states = at_rest(crew, 5)
    assert_same_bits(states)
    assert_first_layer_is_exact(states["b"], chunks)


def test_a_chunk_that_fails_leaves_a_hole_that_closes(hire):
    crew = hire("a", "b")
    crew.start("a", 1, make_chunk(1), 1, hazard=Hazard("out of memory", 1))
    crew.start("b", 2, make_chunk(2), 1)
    assert "fit" in str(crew.answer("a").at_fault[1])
    assert crew.answer("b").committed
    states = at_rest(crew, 2)
    assert_same_bits(states)
    assert_first_layer_is_exact(states["a"], [make_chunk(2)])


def test_gradients_that_are_not_finite_reach_nobody(hire):
    crew = hire("a", "b")
    crew.start("a", 1, make_chunk(1), 1, hazard=Hazard("gradients"))
    crew.start("b", 2, make_chunk(2), 1)
    assert "not finite" in str(crew.answer("a").at_fault[1])
    assert crew.answer("b").committed
    states = at_rest(crew, 2)
    assert_same_bits(states)
    assert_first_layer_is_exact(states["a"], [make_chunk(2)])


def test_deltas_that_are_not_finite_are_not_taken_in(hire):
    """From a process that sends them all the same."""
    crew = hire("a", "b")
    crew.start("a", 1, make_chunk(1), 1, hazard=Hazard("not finite", 1))
    crew.answer("a")
    crew.start("b", 2, make_chunk(2), 1)
    assert crew.answer("b").committed
    assert_first_layer_is_exact(at_rest(crew, 2)["b"], [make_chunk(2)])


@pytest.mark.parametrize("hazard", ["cameras", "heads out of memory"])
def test_heads_that_fail_after_the_deltas_are_out_change_no_memory(hire, hazard):
    crew = hire("a", "b")
    crew.start("a", 1, make_chunk(1), 1, hazard=Hazard(hazard))
    outcome = crew.answer("a")
    assert outcome.committed and "has absorbed" in str(outcome.results[0])
    states = at_rest(crew, 1)
    assert_same_bits(states)
    assert_first_layer_is_exact(states["b"], [make_chunk(1)])


def test_newcomer_and_reset(hire):
    crew = hire("a", "b")
    for number, name in enumerate("abab", start=1):
        crew.start(name, number, make_chunk(number), number)
        assert crew.answer(name).committed
    crew.hire("c")
    progress = crew.form("c", "a", "b")
    assert set(progress.values()) == {Reached(0, 4)}
    states = crew.states()
    assert_same_bits(states)
    crew.form("a", "b", "c", kind="zero")
    crew.start("b", 58, make_chunk(1), 57)
    crew.start("c", 57, make_chunk(2), 57)
    assert crew.answer("b").committed and crew.answer("c").committed
    states = at_rest(crew, 58)
    assert_same_bits(states)
    assert_first_layer_is_exact(states["a"], [make_chunk(2), make_chunk(1)])


def test_bfloat16_on_the_wire_leaves_all_replicas_equal(hire, monkeypatch):
    crew = hire("a", "b", wire="bfloat16")
    for number, name in ((1, "a"), (2, "b")):
        crew.start(name, number, make_chunk(number), 1)
    assert crew.answer("a").committed and crew.answer("b").committed
    states = at_rest(crew, 2)
    assert_same_bits(states)
    whole = tiny_engine()
    whole.reconstruct_round([make_chunk(1), make_chunk(2)])
    expected = whole.state().arrays[FIRST_LAYER[0]]
    error = np.linalg.norm(states["a"][FIRST_LAYER[0]] - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 1e-2
