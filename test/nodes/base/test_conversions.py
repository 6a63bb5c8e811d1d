"""Clouds and poses hold what was put in, seen through independent readers."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent")
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose
from rclpy.serialization import serialize_message
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from scal3r_ros.nodes.base import conversions as cv

pytestmark = pytest.mark.ros


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    T[:, :3, 3] = rng.normal(size=(count, 3)) * 10
    return T


def read_by_rosbags(message, name: str):
    """The message as another implementation of the wire format reads it."""
    return get_typestore(Stores.ROS2_HUMBLE).deserialize_cdr(serialize_message(message), name)


def test_stamps_survive_to_the_nanosecond():
    for stamp in (0, 1, 999_999_999, 1_700_000_000_123_456_789):
        assert cv.stamp_to_ns(cv.ns_to_stamp(stamp)) == stamp
    assert cv.ns_to_stamp(1_700_000_000_123_456_789) == Time(sec=1_700_000_000, nanosec=123_456_789)


def test_cloud_read_back_independently():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(500, 3)).astype(np.float32)
    points[7, 2], points[8, 0] = np.nan, np.inf
    colors = rng.integers(0, 256, (500, 3)).astype(np.uint8)
    confidence = rng.random(500).astype(np.float32)
    message = cv.cloud_message(points, colors, confidence, "map", 1_000_000_002)
    cloud = read_by_rosbags(message, "sensor_msgs/msg/PointCloud2")
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("rgb", 12, 7, 1), ("confidence", 16, 7, 1)
    ]  # fmt: skip
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (1, 498, 20, 498 * 20)
    assert cloud.is_dense and not cloud.is_bigendian
    assert (cloud.header.frame_id, cloud.header.stamp.nanosec) == ("map", 2)
    kept = np.isfinite(points).all(axis=1)
    raw = cloud.data.tobytes()
    for i, (point, color, trust) in enumerate(zip(points[kept], colors[kept], confidence[kept])):
        x, y, z, trust_read = np.frombuffer(raw, "<f4")[5 * i :][[0, 1, 2, 4]]
        word = int.from_bytes(raw[20 * i + 12 : 20 * i + 16], "little")
        assert (x, y, z, trust_read) == (*point, trust)
        assert (word >> 24, word >> 16 & 255, word >> 8 & 255, word & 255) == (0, *color)


def test_empty_cloud_has_all_fields():
    none = np.zeros((0, 3))
    message = cv.cloud_message(none, none.astype(np.uint8), np.zeros(0), "map", 0)
    assert (message.width, message.height, len(message.data), len(message.fields)) == (0, 1, 0, 5)


def test_large_cloud_is_filled_fast():
    """A million points in a time that per-element checks exceed a hundredfold."""
    import time

    points = np.ones((1_000_000, 3), np.float32)
    start = time.process_time()
    cv.cloud_message(points, points.astype(np.uint8), points[:, 0], "map", 0)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("T", [*random_poses(20), np.eye(4)], ids=range(21))
def test_pose_round_trip(T):
    pose = cv.matrix_to_pose(T)
    orientation = [pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w]
    np.testing.assert_allclose(Rotation.from_quat(orientation).as_matrix(), T[:3, :3], atol=1e-12)
    assert pose.orientation.w >= 0
    np.testing.assert_allclose(cv.pose_to_matrix(pose), T, atol=1e-12)
    stamped = cv.matrix_to_transform(T, "map", "camera", 17)
    assert (stamped.header.frame_id, stamped.child_frame_id) == ("map", "camera")
    np.testing.assert_allclose(cv.transform_to_matrix(stamped), T, atol=1e-12)


def test_quaternion_of_a_half_turn():
    T = np.diag([1.0, -1, -1, 1])
    np.testing.assert_allclose(cv.pose_to_matrix(cv.matrix_to_pose(T)), T, atol=1e-12)


@pytest.mark.parametrize("w", [0.0, 2.0, float("nan")])
def test_what_is_no_rotation_is_refused(w):
    pose = Pose()
    pose.orientation.w = w
    with pytest.raises(ValueError, match="not rigid"):
        cv.pose_to_matrix(pose)


def test_unknown_covariance_is_large_but_finite():
    covariance = np.diag([np.inf, 1.0, np.nan, 0.1, 0.1, 0.1])
    message = cv.pose_message(np.eye(4), covariance, "map", 0)
    found = np.array(message.pose.covariance).reshape(6, 6)
    assert np.isfinite(found).all() and found[0, 0] == found[2, 2] == 1e9 and found[1, 1] == 1.0


def test_odometry_frames_and_twist():
    message = cv.odometry_message(
        random_poses(1)[0], np.eye(6), np.arange(6.0), 2 * np.eye(6), "map", "camera", 9
    )
    read = read_by_rosbags(message, "nav_msgs/msg/Odometry")
    assert (read.header.frame_id, read.child_frame_id) == ("map", "camera")
    twist = read.twist.twist
    assert (twist.linear.x, twist.linear.z, twist.angular.x, twist.angular.z) == (0, 2, 3, 5)
    assert read.twist.covariance[0] == 2 and read.pose.covariance[7] == 1


def test_fill_refuses_another_size():
    with pytest.raises(TypeError, match="float64"):
        cv.fill(np.zeros(3), "f")
