"""The path's bytes are those that the message library makes of the same path."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is absent")
from geometry_msgs.msg import PoseStamped  # noqa: E402
from nav_msgs.msg import Path  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from scal3r_ros.nodes.base.conversions import header, matrix_to_pose  # noqa: E402
from scal3r_ros.nodes.output.path_bytes import path_bytes  # noqa: E402

pytestmark = pytest.mark.ros


def random_path(count):
    random = np.random.default_rng(count)
    poses = np.tile(np.eye(4), (count, 1, 1))
    if count:
        poses[:, :3, :3] = Rotation.random(count, random_state=count).as_matrix()
    poses[:, :3, 3] = random.normal(scale=100.0, size=(count, 3))
    return poses, (1_600_000_000 * 10**9 + np.arange(count) * 33_333_333).tolist()


@pytest.mark.parametrize("frame", ["map", "m", "robot_1/map", "karte_ä", ""])
def test_the_message_library_reads_what_was_written(frame):
    for count in (0, 1, 2, 7):
        poses, stamps = random_path(count)
        expected = Path(header=header(frame, stamps[-1] if stamps else 0))
        expected.poses = [
            PoseStamped(header=header(frame, stamp), pose=matrix_to_pose(T))
            for T, stamp in zip(poses, stamps)
        ]
        written = path_bytes(poses, stamps, frame)
        found, as_is = deserialize_message(written, Path), serialize_message(expected)
        assert len(written) == len(as_is)
        assert found.header == expected.header and len(found.poses) == count
        for a, b in zip(found.poses, expected.poses):
            assert a.header == b.header
            quaternions = [(q.x, q.y, q.z, q.w) for q in (a.pose.orientation, b.pose.orientation)]
            assert abs(np.dot(*quaternions)) == pytest.approx(1.0, abs=1e-12)
            assert a.pose.position == b.pose.position


def test_a_long_path_is_written_at_once():
    poses, stamps = random_path(100_000)
    began = time.process_time()
    written = path_bytes(poses, stamps, "map")
    assert time.process_time() - began < 1.0
    assert len(deserialize_message(written, Path).poses) == 100_000
