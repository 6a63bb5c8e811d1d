"""Chunks and predictions come back from the wire exactly as they were sent."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent")
from rclpy.serialization import deserialize_message, serialize_message

from scal3r_ros.msg import Chunk as ChunkMessage
from scal3r_ros.msg import ChunkPrediction as PredictionMessage
from scal3r_ros.nodes.output.trajectory_message import trajectory_message
from scal3r_ros.nodes.workers import chunk_conversions as cc
from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.records import (
    Chunk,
    ChunkPrediction,
    Frame,
    MapUpdate,
    ScaleEstimate,
    TrajectoryPose,
)

pytestmark = pytest.mark.ros
RNG = np.random.default_rng(3)


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def frame(i: int, K: np.ndarray | None = None, size=(6, 8)) -> Frame:
    rgb = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
    return Frame(i, 1_700_000_000_123_456_789 + i, rgb, K)


def assert_same_fields(found, expected):
    for name, value in vars(expected).items():
        if isinstance(value, np.ndarray):
            other = getattr(found, name)
            assert other.dtype == value.dtype, name
            np.testing.assert_array_equal(other, value, err_msg=name)
        elif name != "frames":
            assert getattr(found, name) == value, name


@pytest.mark.parametrize("known", [(), (0, 1, 2), (1,)])
@pytest.mark.parametrize("first_size", [None, (6, 8)])
def test_chunk_round_trip(known, first_size):
    K = np.array([[300.0, 0, 4], [0, 301, 3], [0, 0, 1]])
    frames = tuple(frame(10 + i, K + i if i in known else None, (6 + i, 8)) for i in range(3))
    chunk = Chunk(7, 2, frames, (10, 11), "sequence", first_size)
    message = cc.chunk_to_message(chunk, "camera_optical_frame")
    found = cc.chunk_from_message(over_the_wire(message))
    assert_same_fields(found, chunk)
    for ours, theirs in zip(found.frames, chunk.frames):
        assert (ours.intrinsics is None) == (theirs.intrinsics is None)
        assert_same_fields(ours, theirs)


@pytest.mark.parametrize("field", ["rgb", "stamps_ns", "intrinsics", "heights", "widths"])
def test_chunk_message_with_a_short_array_is_refused(field):
    K = np.eye(3)
    message = cc.chunk_to_message(Chunk(0, 0, (frame(0, K), frame(1, K))))
    setattr(message, field, getattr(message, field)[:-1])
    with pytest.raises(ValueError, match=f"{field} has"):
        cc.chunk_from_message(message)


def prediction(extras: bool) -> ChunkPrediction:
    depth = RNG.random((3, 4, 5)).astype(np.float32)
    depth[0, 0, 0] = np.nan
    return ChunkPrediction(
        chunk_index=5,
        frame_ids=(3, 4, 9),
        T_chunk_camera=RNG.random((3, 4, 4)),
        intrinsics=RNG.random((3, 3, 3)),
        depth=depth,
        confidence=RNG.random((3, 4, 5)).astype(np.float32),
        rgb=RNG.integers(0, 256, (3, 4, 5, 3)).astype(np.uint8),
        missing_ids=(5,),
        gauge="common",
        starts_segment=True,
        descriptors=RNG.random((3, 7)).astype(np.float32) if extras else None,
        points=RNG.random((3, 4, 5, 3)).astype(np.float32) if extras else None,
        memory_version=12,
        timings={"encoder": 0.25, "heads": 1e-3},
    )


@pytest.mark.parametrize("extras", [False, True])
def test_prediction_round_trip(extras):
    expected = prediction(extras)
    found = cc.prediction_from_message(over_the_wire(cc.prediction_to_message(expected)))
    assert_same_fields(found, expected)
    assert (found.points is None, found.descriptors is None) == (not extras, not extras)


def test_failure_round_trip():
    message = over_the_wire(cc.failure_to_message(4, ReconstructionFailed("too few matches")))
    found = cc.prediction_from_message(message)
    assert isinstance(found, ReconstructionFailed) and str(found) == "too few matches"
    assert message.chunk_index == 4


def test_prediction_with_a_short_array_is_refused():
    message = cc.prediction_to_message(prediction(False))
    message.depth = message.depth[:-2]
    with pytest.raises(ValueError, match="depth has 58 elements"):
        cc.prediction_from_message(message)


def test_every_field_of_the_records_is_carried():
    """A field added to a record has to find its place in the message."""
    sent = set(PredictionMessage.get_fields_and_field_types())
    assert set(ChunkPrediction.__dataclass_fields__) - sent == {"T_chunk_camera", "timings"}
    sent = set(ChunkMessage.get_fields_and_field_types())
    assert set(Chunk.__dataclass_fields__) - sent == {"frames", "first_size"}


def test_trajectory_message():
    T = np.eye(4)
    T[:3, 3] = [1, 2, 3]
    poses = tuple(
        TrajectoryPose(i, 100 + i, T, np.diag(np.arange(6.0)), 0.5, 3, i == 1) for i in range(2)
    )
    none = np.zeros((0, 3), np.float32)
    update = MapUpdate(
        8, 3, 1, poses, none, none.astype(np.uint8), none[:, 0], True,
        ScaleEstimate("odometry", 2.0, 0.1), timings={"alignment": 0.5},
    )  # fmt: skip
    message = over_the_wire(trajectory_message(update, poses, "map", "camera", "run"))
    assert (message.header.frame_id, message.child_frame_id, message.run_id) == (
        "map", "camera", "run"
    )  # fmt: skip
    assert (message.map_revision, message.chunk_index, message.corrected) == (8, 3, True)
    assert (message.scale_known, message.scale, message.scale_source) == (True, 2.0, "odometry")
    assert list(message.positions) == [1, 2, 3] * 2
    assert list(message.orientations) == [0, 0, 0, 1] * 2
    assert list(message.covariances) == list(np.diag(np.arange(6.0)).reshape(-1)) * 2
    assert list(message.provisional) == [False, True] and list(message.confidence) == [0.5, 0.5]
    assert list(message.stamps_ns) == [100, 101] and message.header.stamp.nanosec == 101
