"""An independent reader of what `mapping_node` publishes, and its place in the known city."""

import struct

import numpy as np
from rclpy.duration import Duration
from rclpy.time import Time
from scipy.spatial.transform import Rotation

from scal3r_ros.nodes.base.conversions import pose_to_matrix, stamp_to_ns, transform_to_matrix
from scal3r_ros.nodes.base.ros_compat import Buffer


def camera_poses(trajectory_messages):
    """Newest pose of every frame: stamp to (4, 4)."""
    poses = {}
    for message in trajectory_messages:
        positions = np.array(message.positions).reshape(-1, 3)
        turns = Rotation.from_quat(np.array(message.orientations).reshape(-1, 4)).as_matrix()
        for stamp, position, turn in zip(message.stamps_ns, positions, turns):
            poses[stamp] = np.eye(4)
            poses[stamp][:3, :3], poses[stamp][:3, 3] = turn, position
    return poses


def odometry_in_map(robot):
    """Stamp to (4, 4) pose in the map of every odometry message, by the TF tree that was heard; a
    message whose frame is not on the tree at its stamp ends the test."""
    buffer = Buffer(cache_time=Duration(seconds=600))
    for message in robot.heard["tf"]:
        for transform in message.transforms:
            buffer.set_transform(transform, "robot")
    placed = {}
    for message in robot.heard["odometry"]:
        at = Time.from_msg(message.header.stamp)
        found = buffer.lookup_transform("map", message.header.frame_id, at)
        T_odom_camera = pose_to_matrix(message.pose.pose)
        placed[stamp_to_ns(message.header.stamp)] = transform_to_matrix(found) @ T_odom_camera
    return placed


def world_from_map(poses, city):
    """Similarity (scale, R, t) from the map to the city by the poses, and the largest error."""
    stamps = sorted(poses)
    known = {city.stamp_ns(i): city.T_world_camera[i] for i in range(len(city))}
    found = np.array([poses[s] for s in stamps])
    truth = np.array([known[s] for s in stamps])
    R = truth[0, :3, :3] @ found[0, :3, :3].T
    moved = (found[:, :3, 3] - found[0, :3, 3]) @ R.T
    wanted = truth[:, :3, 3] - truth[0, :3, 3]
    scale = np.linalg.norm(wanted[-1]) / np.linalg.norm(moved[-1])
    shift = truth[0, :3, 3] - scale * R @ found[0, :3, 3]
    return scale, R, shift, np.abs(scale * moved - wanted).max()


def cloud_by_hand(message):
    """Points, colours and confidence of a PointCloud2, decoded from its bytes alone."""
    assert not message.is_bigendian and message.height == 1
    assert message.row_step == message.point_step * message.width == len(message.data)
    offsets = {field.name: field.offset for field in message.fields}
    assert offsets == {"x": 0, "y": 4, "z": 8, "rgb": 12, "confidence": 16}
    raw = bytes(message.data)
    rows = list(struct.iter_unpack("<fffIf", raw))
    table = np.array([row[:3] + row[4:] for row in rows], dtype=np.float64).reshape(-1, 4)
    packed = np.array([row[3] for row in rows], dtype=np.uint32)
    colors = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=1)
    assert (packed >> 24 == 0).all()
    return table[:, :3], colors, table[:, 3]
