"""Rounds over real processes give what one process gives."""

import pytest
from agreement import (
    TOLERANCE,
    assert_predictions_equal,
    assert_same_bits,
    assert_states_equal,
    difference,
    predictions,
)
from crew import Crew, make_chunk, tiny_engine

from scal3r_ros.workers.exchange import ring_bytes


@pytest.fixture
def hire():
    crews = []

    def hire(*names, **engine):
        crews.append(Crew(*names, **engine))
        return crews[-1]

    yield hire
    for crew in crews:
        crew.close()


def test_one_round_over_processes_is_batch(hire):
    chunks = [make_chunk(0), make_chunk(1, frames=4), make_chunk(2)]
    crew = hire("a", "b", "c")
    crew.form("a", "b", "c")
    answers = crew.round(1, chunks)
    whole = tiny_engine()
    assert_predictions_equal(predictions(answers), whole.reconstruct_round(chunks))
    alone = tiny_engine().reconstruct(chunks[0])
    assert difference(alone.depth, answers["a"].results[0].depth) > 100 * TOLERANCE
    states = crew.states()
    assert_same_bits(states)
    assert_states_equal(states["a"], whole.state().arrays)


@pytest.mark.parametrize("decay, window", [(1.0, 0), (0.5, 0), (1.0, 4)])
def test_several_rounds_are_the_same_rounds_of_one_process(hire, decay, window):
    """The last round has fewer chunks than there are processes: the idle one brings zeros."""
    crew = hire("a", "b", decay=decay, window=window)
    crew.form("a", "b")
    alone = tiny_engine(decay=decay, window=window)
    for number, indices in enumerate([(0, 1), (2, 3), (4, 5, 6), (7,)], start=1):
        chunks = [make_chunk(i) for i in indices]
        assert_predictions_equal(
            predictions(crew.round(number, chunks)), alone.reconstruct_round(chunks)
        )
    states = crew.states()
    assert_same_bits(states)
    assert_states_equal(states["b"], alone.state().arrays)
    assert int(states["a"]["chunks"]) == 8


def test_a_group_of_one_is_the_process_alone_bit_for_bit(hire):
    crew = hire("a")
    crew.form("a")
    alone = tiny_engine()
    for number in (1, 2):
        found = predictions(crew.round(number, [make_chunk(number)]))[0]
        expected = alone.reconstruct(make_chunk(number))
        assert found.depth.tobytes() == expected.depth.tobytes()
    assert_same_bits({"group": crew.ask("a", "state"), "alone": alone.state().arrays})


def test_reading_leaves_no_trace_and_sees_the_committed_memory(hire):
    crew = hire("a", "b")
    crew.form("a", "b")
    crew.round(1, [make_chunk(0), make_chunk(1)])
    alone = tiny_engine()
    alone.reconstruct_round([make_chunk(0), make_chunk(1)])
    before = crew.states()
    found = crew.ask("b", "read", make_chunk(5))
    assert_predictions_equal([found], [alone.reconstruct(make_chunk(5), contribute=False)])
    assert_same_bits({"before": before["b"], "after": crew.ask("b", "state")})


def test_traffic_is_what_a_ring_needs(hire):
    crew = hire("a", "b")
    crew.form("a", "b")
    crew.round(1, [make_chunk(0), make_chunk(1)])
    traffic = crew.ask("a", "traffic")
    one_layer = 3 * 32 * 128 * 4
    assert traffic.collectives == 3
    assert traffic.bytes_sent == 3 * ring_bytes(one_layer, 2) == 3 * one_layer


def test_bfloat16_on_the_wire_rounds_the_sum_and_halves_the_traffic(hire):
    crew = hire("a", "b", wire="bfloat16")
    crew.form("a", "b")
    chunks = [make_chunk(0), make_chunk(1)]
    found = predictions(crew.round(1, chunks))
    whole = tiny_engine()
    expected = whole.reconstruct_round(chunks)
    assert 1e-7 < difference(found[0].depth, expected[0].depth) < 0.05
    states = crew.states()
    assert_same_bits(states)
    for name, value in whole.state().arrays.items():
        if name.startswith("bucket0.layer1"):
            assert 1e-4 < difference(states["a"][name], value) < 1e-2
    assert crew.ask("a", "traffic").bytes_sent == 3 * 3 * 32 * 128 * 2
