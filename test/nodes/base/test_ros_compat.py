"""The contract of the four ROS libraries, checked against whichever implementation is in use."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent")
from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time
from scipy.spatial.transform import Rotation, Slerp
from sensor_msgs.msg import PointField
from std_msgs.msg import Header

from scal3r_ros.nodes.base import ros_compat
from scal3r_ros.nodes.base.conversions import matrix_to_transform, transform_to_matrix
from scal3r_ros.nodes.base.ros_compat import point_cloud2, tf_transformations

pytestmark = pytest.mark.ros
SECOND = 10**9


def test_every_library_has_a_source():
    assert set(ros_compat.SOURCES) == {
        "cv_bridge", "sensor_msgs_py", "tf_transformations", "tf2_ros"
    }  # fmt: skip
    assert set(ros_compat.SOURCES.values()) <= {"library", "stand-in"}


# cv_bridge


@pytest.mark.parametrize(
    ("arguments", "source"),
    [("image, encoding='passthrough'", "stand-in"),
     ("image, encoding='passthrough', header=None", "library")],
    ids=["ros1", "ros2"],
)  # fmt: skip
def test_the_bridge_of_ros_1_is_not_taken_for_ours(tmp_path, arguments, source):
    """Package indexes offer it under the same name."""
    boost = tmp_path / "cv_bridge" / "boost"
    boost.mkdir(parents=True)
    (boost / "__init__.py").touch()
    (boost / "cv_bridge_boost.py").touch()
    (tmp_path / "cv_bridge" / "__init__.py").write_text(
        f"class CvBridge:\n    def cv2_to_imgmsg(self, {arguments}): ...\n"
        "class CvBridgeError(Exception): ...\n"
    )
    program = "from scal3r_ros.nodes.base.ros_compat import SOURCES; print(SOURCES['cv_bridge'])"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    told = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == source


def test_bridge_round_trips_and_converts():
    bridge = ros_compat.CvBridge()
    rgb = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    header = Header(frame_id="camera", stamp=TimeMessage(sec=3, nanosec=4))
    message = bridge.cv2_to_imgmsg(rgb, "rgb8", header)
    assert (message.height, message.width, message.step, message.encoding) == (4, 6, 18, "rgb8")
    assert message.header == header and message.is_bigendian == 0
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message), rgb)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message, "bgr8"), rgb[..., ::-1])
    depth = rgb[..., 0].astype(np.float32)
    message = bridge.cv2_to_imgmsg(depth)
    assert message.encoding == "32FC1"
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message), depth)


def test_bridge_greys_like_the_video_standard():
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    bridge = ros_compat.CvBridge()
    grey = bridge.imgmsg_to_cv2(bridge.cv2_to_imgmsg(rgb, "rgb8"), "mono8")
    np.testing.assert_array_equal(grey, [[76, 150, 29]])


def test_bridge_refuses_a_wrong_encoding():
    with pytest.raises(ros_compat.CvBridgeError):
        ros_compat.CvBridge().cv2_to_imgmsg(np.zeros((2, 2), np.float32), "rgb8")


# sensor_msgs_py


def cloud_of(points: np.ndarray, fields=None):
    fields = fields or [
        PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, n in enumerate("xyz")
    ]
    return point_cloud2.create_cloud(Header(frame_id="map"), fields, points)


def test_cloud_round_trip_with_mixed_fields():
    fields = [
        PointField(name="x", offset=0, datatype=PointField.FLOAT64, count=1),
        PointField(name="label", offset=8, datatype=PointField.UINT16, count=1),
        PointField(name="y", offset=10, datatype=PointField.FLOAT32, count=1),
    ]
    dtype = np.dtype({"names": ["x", "label", "y"], "formats": ["<f8", "<u2", "<f4"],
                      "offsets": [0, 8, 10]})  # fmt: skip
    points = np.zeros(3, dtype)
    points["x"], points["label"], points["y"] = [1, 2, 3], [7, 8, 65535], [0.5, np.nan, -1]
    cloud = cloud_of(points, fields)
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (3, 1, 14, 42)
    found = point_cloud2.read_points(cloud)
    for name in dtype.names:
        np.testing.assert_array_equal(found[name], points[name])
    some = point_cloud2.read_points(cloud, field_names=["label", "y"], skip_nans=True)
    np.testing.assert_array_equal(some["label"], [7, 65535])


def test_cloud_in_the_other_byte_order():
    dtype = np.dtype([(n, "<f4") for n in "xyz"])
    points = np.zeros(2, dtype)
    points["z"] = [1.5, -2.0]
    cloud = cloud_of(points)
    swapped = points.byteswap()
    cloud.data = type(cloud.data)("B", swapped.tobytes())
    cloud.is_bigendian = True
    np.testing.assert_array_equal(point_cloud2.read_points(cloud)["z"], [1.5, -2.0])


# tf_transformations


@pytest.mark.parametrize("seed", range(10))
def test_quaternions_agree_with_scipy(seed):
    rotation = Rotation.random(random_state=seed)
    expected = rotation.as_quat()
    found = tf_transformations.quaternion_from_matrix(np.pad(rotation.as_matrix(), (0, 1)) + E44)
    assert abs(found @ expected) == pytest.approx(1, abs=1e-12)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-12)
    matrix = tf_transformations.quaternion_matrix(expected)
    np.testing.assert_allclose(matrix[:3, :3], rotation.as_matrix(), atol=1e-12)
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])
    other = Rotation.random(random_state=seed + 100)
    product = tf_transformations.quaternion_multiply(expected, other.as_quat())
    assert abs(np.dot(product, (rotation * other).as_quat())) == pytest.approx(1, abs=1e-12)
    middle = tf_transformations.quaternion_slerp(expected, other.as_quat(), 0.3)
    reference = Slerp([0, 1], Rotation.concatenate([rotation, other]))(0.3).as_quat()
    assert abs(np.dot(middle, reference)) == pytest.approx(1, abs=1e-9)


E44 = np.zeros((4, 4))
E44[3, 3] = 1.0


# tf2_ros


def pose(x: float, yaw: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    T[0, 3] = x
    return T


def robot_buffer() -> ros_compat.Buffer:
    """odom -> base moves from time 1 s to 3 s; base -> camera and map -> odom are fixed."""
    buffer = ros_compat.Buffer()
    for second in (1, 2, 3):
        T = pose(float(second), yaw=0.5 * second)
        buffer.set_transform(matrix_to_transform(T, "odom", "base", second * SECOND), "test")
    buffer.set_transform_static(matrix_to_transform(pose(0.2), "base", "camera", 0), "test")
    buffer.set_transform_static(matrix_to_transform(pose(10.0), "map", "odom", 0), "test")
    return buffer


def at(seconds: float) -> Time:
    return Time(nanoseconds=int(seconds * SECOND))


def test_lookup_interpolates_and_chains():
    found = robot_buffer().lookup_transform("map", "camera", at(2.5))
    assert (found.header.frame_id, found.child_frame_id) == ("map", "camera")
    assert (found.header.stamp.sec, found.header.stamp.nanosec) == (2, 500_000_000)
    expected = pose(10.0) @ pose(2.5, yaw=1.25) @ pose(0.2)
    np.testing.assert_allclose(transform_to_matrix(found), expected, atol=1e-9)


def test_lookup_backwards_is_the_inverse():
    buffer = robot_buffer()
    forward = transform_to_matrix(buffer.lookup_transform("map", "camera", at(1.75)))
    backward = transform_to_matrix(buffer.lookup_transform("camera", "map", at(1.75)))
    np.testing.assert_allclose(forward @ backward, np.eye(4), atol=1e-9)


def test_time_zero_is_the_latest_common_time():
    buffer = robot_buffer()
    found = buffer.lookup_transform("map", "camera", Time())
    assert found.header.stamp.sec == 3
    np.testing.assert_allclose(transform_to_matrix(found)[0, 3] - 10, 3 + 0.2 * np.cos(1.5))
    buffer.set_transform(matrix_to_transform(pose(0), "camera", "lens", 2 * SECOND), "test")
    assert buffer.lookup_transform("map", "lens", Time()).header.stamp.sec == 2


def test_frames_in_a_circle_are_refused_and_not_followed_for_ever():
    buffer = robot_buffer()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "lens")):
        buffer.set_transform(matrix_to_transform(pose(0), parent, child, SECOND), "test")
    for stamp in (Time(), at(1.0)):
        with pytest.raises(ros_compat.TransformException):
            buffer.lookup_transform("map", "lens", stamp)
    with pytest.raises(ros_compat.TransformException):
        buffer.lookup_transform("lens", "camera", Time())


def test_siblings_below_a_late_link_are_found():
    """base -> left and base -> right do not need odom -> base at that time."""
    buffer = robot_buffer()
    buffer.set_transform_static(matrix_to_transform(pose(-0.3), "base", "right", 0), "test")
    found = buffer.lookup_transform("camera", "right", at(99.0))
    assert transform_to_matrix(found)[0, 3] == pytest.approx(-0.5)


@pytest.mark.parametrize("seconds", [0.5, 3.5])
def test_no_extrapolation(seconds):
    with pytest.raises(ros_compat.ExtrapolationException):
        robot_buffer().lookup_transform("map", "camera", at(seconds))
    assert not robot_buffer().can_transform("map", "camera", at(seconds))


def test_unknown_and_unconnected_frames():
    buffer = robot_buffer()
    with pytest.raises(ros_compat.LookupException):
        buffer.lookup_transform("map", "nowhere", Time())
    buffer.set_transform_static(matrix_to_transform(pose(0), "moon", "lander", 0), "test")
    with pytest.raises(ros_compat.TransformException):
        buffer.lookup_transform("map", "lander", Time())


def test_cache_forgets_the_old():
    buffer = ros_compat.Buffer(cache_time=Duration(seconds=2))
    for second in range(1, 8):
        T = matrix_to_transform(pose(second), "odom", "base", second * SECOND)
        buffer.set_transform(T, "test")
    assert buffer.can_transform("odom", "base", at(5.5))
    assert not buffer.can_transform("odom", "base", at(3.0))


def test_clear_forgets():
    buffer = robot_buffer()
    buffer.clear()
    assert not buffer.can_transform("odom", "base", at(2.0))


def test_broadcast_is_heard_over_dds(node, spin_until):
    buffer = ros_compat.Buffer()
    listener = ros_compat.TransformListener(buffer, node, spin_thread=False)
    moving = ros_compat.TransformBroadcaster(node)
    static = ros_compat.StaticTransformBroadcaster(node)
    static.sendTransform(matrix_to_transform(pose(1.0), "base", "camera", 0))
    static.sendTransform([matrix_to_transform(pose(2.0), "base", "lidar", 0)])

    def heard() -> bool:
        moving.sendTransform(matrix_to_transform(pose(5.0), "map", "base", 4 * SECOND))
        return buffer.can_transform("map", "camera", at(4.0))

    spin_until(heard, node)
    found = buffer.lookup_transform("map", "camera", at(4.0))
    assert transform_to_matrix(found)[0, 3] == pytest.approx(6.0)
    assert isinstance(found, TransformStamped)
    spin_until(lambda: buffer.can_transform("camera", "lidar", Time()), node)
    listener.unregister()


def test_late_listener_hears_all_static_transforms(node, spin_until):
    static = ros_compat.StaticTransformBroadcaster(node)
    static.sendTransform(matrix_to_transform(pose(1.0), "base", "camera", 0))
    static.sendTransform(matrix_to_transform(pose(2.0), "base", "lidar", 0))
    buffer = ros_compat.Buffer()
    listener = ros_compat.TransformListener(buffer, node, spin_thread=False)
    spin_until(lambda: buffer.can_transform("camera", "lidar", Time()), node)
    listener.unregister()
