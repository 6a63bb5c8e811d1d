"""Frames, chunks and predictions taken apart and put together again."""

import json
from dataclasses import replace

import numpy as np
import pytest

from scal3r_ros.records import Chunk, ChunkPrediction, Frame
from scal3r_ros.records_arrays import (
    pack_chunk,
    pack_frames,
    pack_prediction,
    unpack_chunk,
    unpack_frames,
    unpack_prediction,
)

RNG = np.random.default_rng(0)
K = np.array([[300.0, 0, 4], [0, 301, 3], [0, 0, 1]])
FRAMES = tuple(
    Frame(3 * i, 10**18 + i, RNG.integers(0, 256, (4 + i, 6, 3), np.uint8), K if i == 1 else None)
    for i in range(3)
)
PREDICTION = ChunkPrediction(
    7,
    (3, 6),
    T_chunk_camera=RNG.random((2, 4, 4)),
    intrinsics=RNG.random((2, 3, 3)),
    depth=RNG.random((2, 4, 5)).astype(np.float32),
    confidence=RNG.random((2, 4, 5)).astype(np.float32),
    rgb=RNG.integers(0, 256, (2, 4, 5, 3), np.uint8),
    missing_ids=(9,),
    gauge="rigid",
    starts_segment=True,
    memory_version=4,
    timings={"layers": 0.5},
)
EXTRAS = {
    "descriptors": RNG.random((2, 8)).astype(np.float32),
    "points": RNG.random((2, 4, 5, 3)).astype(np.float32),
}


def assert_same(found, expected):
    for name, value in vars(expected).items():
        other = getattr(found, name)
        if isinstance(value, np.ndarray):
            assert other.dtype == value.dtype
            np.testing.assert_array_equal(other, value)
        elif name == "frames":
            for a, b in zip(other, value, strict=True):
                assert_same(a, b)
        else:
            assert other == value, name


@pytest.mark.parametrize("first_size", [None, (4, 6)])
def test_a_chunk_comes_back(first_size):
    chunk = Chunk(5, 1, FRAMES, (0,), "sequence", first_size)
    packed = pack_chunk(chunk)
    assert_same(unpack_chunk(json.loads(json.dumps(packed.facts)), packed.arrays), chunk)


@pytest.mark.parametrize("extras", [{}, EXTRAS])
@pytest.mark.parametrize("flat", [False, True])
def test_a_prediction_comes_back(extras, flat):
    prediction = replace(PREDICTION, **extras)
    packed = pack_prediction(prediction)
    facts = json.loads(json.dumps(packed.facts))
    arrays = {k: v.ravel() if flat else v for k, v in packed.arrays.items()}
    assert_same(unpack_prediction(facts, arrays, (4, 5) if flat else None), prediction)


def test_no_frames_are_no_frames():
    assert unpack_frames(pack_frames(())) == ()


@pytest.mark.parametrize("name", ["stamps_ns", "heights", "widths", "intrinsics", "rgb"])
def test_arrays_that_do_not_fit_together_are_refused(name):
    arrays = pack_frames(FRAMES)
    with pytest.raises(ValueError, match=f"{name} has"):
        unpack_frames({**arrays, name: arrays[name].ravel()[:-1]})
    with pytest.raises(ValueError, match=f"{name} is complex128"):
        unpack_frames({**arrays, name: arrays[name].astype(complex)})


@pytest.mark.parametrize("name", ["T_chunk_camera", "depth", "confidence", "rgb", "points"])
def test_predictions_that_do_not_fit_together_are_refused(name):
    packed = pack_prediction(replace(PREDICTION, **EXTRAS))
    with pytest.raises(ValueError, match=f"{name} has"):
        unpack_prediction(
            packed.facts, {**packed.arrays, name: packed.arrays[name].ravel()[:-1]}, (4, 5)
        )
