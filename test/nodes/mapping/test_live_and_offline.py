"""A bag mapped live over DDS and the same bag mapped without ROS give the same map."""

import os
import subprocess
import sys

import numpy as np
import pytest
from plyfile import PlyData
from scipy.spatial import cKDTree

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from map_reading import camera_poses, cloud_by_hand
from mapping_process import REPOSITORY, SMALL_CHUNKS
from oracle_node import DEFAULTS, StampOracle
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from scal3r_ros.io.inputs import open_source
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline.offline import run
from scal3r_ros.reconstruct.factory import preset_options

pytestmark = pytest.mark.ros
OPTIONS = {**DEFAULTS, "frames": 60}
TOLERANCE = 1e-6
"""Map units: the same code on the same frames; written files keep single precision."""


def write_bag(path, city, count):
    """Distorted raw images with their calibration, as a camera driver would have them recorded."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    K = city.intrinsics.copy()
    K[:2, 2] -= 0.5
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    with Writer(path, version=8) as writer:
        image = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=store)
        info = writer.add_connection("/camera_info", "sensor_msgs/msg/CameraInfo", typestore=store)
        for i in range(count):
            frame = city.frame(i)
            stamp = types["builtin_interfaces/msg/Time"](*divmod(frame.stamp_ns, 10**9))
            head = types["std_msgs/msg/Header"](stamp, "camera_optical_frame")
            height, width = frame.rgb.shape[:2]
            camera = types["sensor_msgs/msg/CameraInfo"](
                head, height, width, "plumb_bob", np.array([-0.1, 0.02, 0.0, 0.0, 0.0]),
                K.ravel(), np.eye(3).ravel(), np.zeros(12), 0, 0, roi,
            )  # fmt: skip
            raw = types["sensor_msgs/msg/Image"](
                head, height, width, "rgb8", 0, 3 * width, frame.rgb.ravel()
            )
            kinds = ((info, camera, "CameraInfo"), (image, raw, "Image"))
            for connection, message, kind in kinds:
                data = store.serialize_cdr(message, f"sensor_msgs/msg/{kind}")
                writer.write(connection, frame.stamp_ns, data)


def test_live_replay_and_offline_agree(start_mapping, make_robot, tmp_path):
    robot = make_robot(OPTIONS)
    write_bag(tmp_path / "bag", robot.city, 42)
    process = start_mapping(OPTIONS, **{"use_sim_time": True, "map.voxel_size": 0.01})
    robot.until_active()
    command = [sys.executable, "-m", "scal3r_ros.cli", "play", str(tmp_path / "bag")]
    command += ["--rate", "2", "--wait-for", "/image"]
    subprocess.run(
        command, check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    robot.flush()
    robot.until_status("input", processed="42")
    robot.until(lambda: len(camera_poses(robot.heard["trajectory"])) == 42, 60, "42 poses")
    live = camera_poses(robot.heard["trajectory"])
    live_points, _, _ = cloud_by_hand(robot.heard["map"][-1])
    assert process.stop() == 0

    presets = preset_options("scal3r", "")
    config = from_dict(NodeConfig, {**presets, **SMALL_CHUNKS, "map.voxel_size": 0.01})
    source = open_source(tmp_path / "bag", topic="/image")
    run(config, source, StampOracle(OPTIONS), tmp_path / "offline")
    rows = np.loadtxt(tmp_path / "offline" / "trajectory.txt")
    assert len(rows) == 42
    found = np.array([live[stamp][:3, 3] for stamp in sorted(live)])
    np.testing.assert_allclose(found, rows[:, 1:4], atol=TOLERANCE)
    vertices = PlyData.read(tmp_path / "offline" / "map.ply")["vertex"]
    offline_points = np.stack([vertices[axis] for axis in "xyz"], axis=1)
    assert len(offline_points) == len(live_points)
    distance, nearest = cKDTree(offline_points).query(live_points)
    assert distance.max() < TOLERANCE and len(set(nearest)) == len(nearest)
