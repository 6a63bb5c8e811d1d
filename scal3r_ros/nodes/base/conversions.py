"""ROS messages to arrays and back: time, clouds, poses. Images: `image_conversions`.

Free functions; what a message gets wrong is a `ValueError` that says what was found and expected.
"""

from __future__ import annotations

import array
import math

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from scal3r_ros.nodes.base.ros_compat import point_cloud2, tf_transformations

_CLOUD_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(("x", "y", "z", "rgb", "confidence"))
]
_CLOUD_DTYPE = np.dtype([(field.name, "<f4") for field in _CLOUD_FIELDS])
_POINT_DTYPE = np.dtype([(field.name, "<f4") for field in _CLOUD_FIELDS[:3]])


def fill(values: np.ndarray, typecode: str) -> array.array:
    """array.array of an array's elements; any other type is checked element by element, slowly."""
    filled = array.array(typecode)
    if filled.itemsize != values.dtype.itemsize:
        raise TypeError(f"array of {typecode!r} cannot hold {values.dtype}")
    filled.frombytes(np.ascontiguousarray(values).data.cast("B") if values.size else b"")
    return filled


def stamp_to_ns(stamp: Time) -> int:
    """Integer nanoseconds."""
    return stamp.sec * 10**9 + stamp.nanosec


def frame_name(name: str) -> str:
    """Name of a frame without the leading slash that old drivers write; TF knows none."""
    return name.lstrip("/")


def required_stamp_ns(stamp: Time) -> int:
    """Integer nanoseconds of a stamp that must be set; `ValueError` if it is not or is negative."""
    stamp_ns = stamp_to_ns(stamp)
    if stamp_ns <= 0:
        raise ValueError(f"time stamp {stamp_ns * 1e-9:.3f} s; the driver must fill header.stamp")
    return stamp_ns


def ns_to_stamp(stamp_ns: int) -> Time:
    """Message of integer nanoseconds."""
    seconds, nanoseconds = divmod(int(stamp_ns), 10**9)
    return Time(sec=seconds, nanosec=nanoseconds)


def header(frame_id: str, stamp_ns: int) -> Header:
    """Header of a frame at a time."""
    return Header(frame_id=frame_id, stamp=ns_to_stamp(stamp_ns))


def cloud_message(
    points: np.ndarray, colors: np.ndarray, confidence: np.ndarray, frame_id: str, stamp_ns: int
) -> PointCloud2:
    """PointCloud2 of points (N, 3), colours (N, 3) uint8, confidence (N,); finite points only."""
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        points, colors, confidence = points[finite], colors[finite], confidence[finite]
    cloud = np.empty(len(points), _CLOUD_DTYPE)
    for i, name in enumerate("xyz"):
        cloud[name] = points[:, i]
    red, green, blue = (colors[:, i].astype("<u4") for i in range(3))
    cloud["rgb"] = (red << 16 | green << 8 | blue).view("<f4")
    cloud["confidence"] = confidence
    message = point_cloud2.create_cloud(header(frame_id, stamp_ns), _CLOUD_FIELDS, cloud)
    message.is_dense = True
    return message


def points_message(points: np.ndarray, frame_id: str, stamp_ns: int) -> PointCloud2:
    """PointCloud2 of finite points (N, 3), nothing but x, y and z."""
    cloud = np.empty(len(points), _POINT_DTYPE)
    for i, name in enumerate("xyz"):
        cloud[name] = points[:, i]
    message = point_cloud2.create_cloud(header(frame_id, stamp_ns), _CLOUD_FIELDS[:3], cloud)
    message.is_dense = True
    return message


def matrix_to_pose(T: np.ndarray) -> Pose:
    """Pose of a rigid (4, 4) transform."""
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = map(float, T[:3, 3])
    x, y, z, w = tf_transformations.quaternion_from_matrix(T)
    pose.orientation.x, pose.orientation.y = float(x), float(y)
    pose.orientation.z, pose.orientation.w = float(z), float(w)
    return pose


def pose_to_matrix(pose: Pose) -> np.ndarray:
    """Rigid (4, 4) transform of a pose; `ValueError` for numbers that are not one."""
    return _rigid(pose.position, pose.orientation)


def matrix_to_transform(
    T: np.ndarray, frame_id: str, child_frame_id: str, stamp_ns: int
) -> TransformStamped:
    """Stamped transform of a rigid (4, 4) T_frame_child."""
    pose = matrix_to_pose(T)
    message = TransformStamped(header=header(frame_id, stamp_ns), child_frame_id=child_frame_id)
    translation = message.transform.translation
    translation.x, translation.y, translation.z = pose.position.x, pose.position.y, pose.position.z
    message.transform.rotation = pose.orientation
    return message


def transform_to_matrix(message: TransformStamped) -> np.ndarray:
    """Rigid (4, 4) T_frame_child; `ValueError` for numbers that are not one."""
    return _rigid(message.transform.translation, message.transform.rotation)


def _rigid(position, orientation) -> np.ndarray:
    quaternion = (orientation.x, orientation.y, orientation.z, orientation.w)
    translation = (position.x, position.y, position.z)
    length = math.hypot(*quaternion)
    if not all(map(math.isfinite, translation)) or not abs(length - 1) < 1e-2:
        raise ValueError(f"pose {translation}, quaternion {quaternion} is not rigid")
    T = np.array(tf_transformations.quaternion_matrix(quaternion))
    T[:3, 3] = translation
    return T


def pose_message(
    T: np.ndarray, covariance: np.ndarray, frame_id: str, stamp_ns: int
) -> PoseWithCovarianceStamped:
    """Pose with (6, 6) covariance x y z, roll pitch yaw in the header's frame."""
    message = PoseWithCovarianceStamped(header=header(frame_id, stamp_ns))
    message.pose.pose = matrix_to_pose(T)
    message.pose.covariance = _finite_covariance(covariance)
    return message


def odometry_message(
    T: np.ndarray,
    covariance: np.ndarray,
    twist: np.ndarray,
    twist_covariance: np.ndarray,
    frame_id: str,
    child_frame_id: str,
    stamp_ns: int,
) -> Odometry:
    """Odometry: pose in the header's frame, `twist` (6,) linear and angular in the child frame."""
    message = Odometry(header=header(frame_id, stamp_ns), child_frame_id=child_frame_id)
    message.pose.pose = matrix_to_pose(T)
    message.pose.covariance = _finite_covariance(covariance)
    linear, angular = message.twist.twist.linear, message.twist.twist.angular
    linear.x, linear.y, linear.z = map(float, twist[:3])
    angular.x, angular.y, angular.z = map(float, twist[3:])
    message.twist.covariance = _finite_covariance(twist_covariance)
    return message


def _finite_covariance(covariance: np.ndarray) -> np.ndarray:
    """Row-major 36 numbers; infinite entries become very large, because consumers invert them."""
    return np.nan_to_num(covariance.astype(float), posinf=1e9, neginf=-1e9, nan=1e9).reshape(-1)
