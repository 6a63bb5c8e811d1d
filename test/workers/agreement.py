"""What it means that several processes computed the same as one."""

import numpy as np

TOLERANCE = 1e-5


def difference(found, expected):
    """Relative, in the Euclidean norm."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def assert_predictions_equal(found, expected):
    assert [p.chunk_index for p in found] == [p.chunk_index for p in expected]
    for a, b in zip(found, expected):
        assert a.frame_ids == b.frame_ids
        for name in ("T_chunk_camera", "intrinsics", "depth", "confidence"):
            error = difference(getattr(a, name), getattr(b, name))
            assert error <= TOLERANCE, f"chunk {a.chunk_index}: {name} differs by {error}"


def assert_states_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert difference(found[name], value) <= TOLERANCE or not value.any(), name


def assert_same_bits(states):
    first, *others = states.values()
    for other in others:
        assert first.keys() == other.keys()
        assert all(first[name].tobytes() == other[name].tobytes() for name in first)


def predictions(answers):
    return [p for outcome in answers.values() for p in outcome.results]
