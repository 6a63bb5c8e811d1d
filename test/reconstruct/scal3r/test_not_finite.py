"""NaN in one chunk: the others of its round are untouched, and what is said of the memory is
true."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from crew import make_chunk, spoil, tiny_engine  # noqa: E402

from scal3r_ros.networks.scal3r.memory import NotFinite  # noqa: E402
from scal3r_ros.reconstruct.interface import ReconstructionFailed  # noqa: E402

CHUNKS = [make_chunk(i) for i in range(3)]


def assert_same_memory(found, expected):
    assert found.memory.chunks == expected.memory.chunks
    for name, value in expected.state().arrays.items():
        np.testing.assert_array_equal(found.state().arrays[name], value)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_chunk_with_such_gradients_is_left_out_of_its_round(layer):
    engine, expected = tiny_engine(), tiny_engine()
    spoil(engine, "gradients", call=1, layer=layer)
    first, failure, last = engine.reconstruct_round(CHUNKS)
    assert isinstance(failure, ReconstructionFailed) and "did not absorb it" in str(failure)
    for found, want in zip((first, last), expected.reconstruct_round([CHUNKS[0], CHUNKS[2]])):
        np.testing.assert_array_equal(found.depth, want.depth)
    assert_same_memory(engine, expected)


def test_alone_it_is_refused_and_the_next_one_goes_on():
    engine, expected = tiny_engine(), tiny_engine()
    spoil(engine, "gradients", call=1)
    for each in (engine, expected):
        each.reconstruct(CHUNKS[0])
    with pytest.raises(ReconstructionFailed, match="did not absorb it"):
        engine.reconstruct(CHUNKS[1])
    assert_same_memory(engine, expected)
    assert engine.reconstruct(CHUNKS[2]).memory_version == 2


def test_cameras_that_are_not_finite_leave_the_chunk_in_the_memory():
    engine, expected = tiny_engine(), tiny_engine()
    spoil(engine, "cameras", call=1)
    results = engine.reconstruct_round(CHUNKS)
    expected.reconstruct_round(CHUNKS)
    assert [isinstance(result, ReconstructionFailed) for result in results] == [False, True, False]
    assert "has absorbed the chunk" in str(results[1])
    assert_same_memory(engine, expected)


def test_of_a_chunk_that_only_reads_it_is_said_that_nothing_changed():
    engine = tiny_engine()
    spoil(engine, "cameras")
    with pytest.raises(ReconstructionFailed, match="memory is unchanged"):
        engine.reconstruct(CHUNKS[0], contribute=False)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_way_in_lets_them_pass(value):
    engine = tiny_engine()
    engine.reconstruct(CHUNKS[0])
    before = engine.state()
    deltas = dict(engine.delta_shapes())
    deltas[2] = deltas[2].scaled(value)
    with pytest.raises(NotFinite):
        engine.absorb(deltas)
    arrays = {**before.arrays, "bucket0.layer2.w1": before.arrays["bucket0.layer2.w1"] * value}
    with pytest.raises(ValueError, match="not finite"):
        engine.restore(type(before)(before.kind, before.fingerprint, before.version, arrays))
    for name, array in engine.state().arrays.items():
        np.testing.assert_array_equal(array, before.arrays[name])


def test_finalize_lets_such_a_chunk_only_read():
    """Found in the second pass, after the stream had absorbed it."""
    engine, expected = tiny_engine(mode="finalize"), tiny_engine(mode="finalize")
    for chunk in CHUNKS:
        engine.reconstruct(chunk)
    spoil(engine, "gradients", call=1)
    found = list(engine.finalize())
    for chunk in (CHUNKS[0], CHUNKS[2]):
        expected.reconstruct(chunk)
    first, last = expected.finalize()
    np.testing.assert_array_equal(found[0].depth, first.depth)
    np.testing.assert_array_equal(found[2].depth, last.depth)
    assert np.isfinite(found[1].depth).all() and found[1].memory_version == 2
    assert_same_memory(engine, expected)


def test_finalize_begins_anew_after_it_was_broken_off(monkeypatch):
    engine = tiny_engine(mode="finalize")
    for chunk in CHUNKS:
        engine.reconstruct(chunk)
    expected = [prediction.depth for prediction in engine.finalize()]
    unit = engine.network.agg_regator.memory_unit(2)
    with monkeypatch.context() as broken:
        broken.setattr(unit, "gradient", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            engine.finalize()
    for found, want in zip(engine.finalize(), expected, strict=True):
        np.testing.assert_array_equal(found.depth, want)
