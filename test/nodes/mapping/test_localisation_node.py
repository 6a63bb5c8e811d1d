"""The node in a saved map: on /tf while it knows where it is, silent and saying why while not."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from geometry_msgs.msg import PoseWithCovarianceStamped
from map_reading import camera_poses, world_from_map

from scal3r_ros.nodes.base.conversions import stamp_to_ns, transform_to_matrix

pytestmark = pytest.mark.ros
OPTIONS = {"frames": 60}
MAP = {
    "loop.enabled": True, "loop.min_gap": 20, "loop.window": 8, "loop.nms_window": 4,
    "loop.threshold": 0.6, "gate.max_gap": 1.0,
}  # fmt: skip
CAMERA = ("map", "camera_optical_frame")


@pytest.fixture
def saved_map(start_mapping, make_robot, tmp_path):
    """Every second frame of a drive, mapped and saved; the robot that listens, and the poses."""
    process, robot = start_mapping(OPTIONS, **MAP), make_robot(OPTIONS)
    robot.until_active()
    robot.show(range(0, 60, 2))
    robot.flush()
    assert robot.call("save_map", path=str(tmp_path / "map")).success
    poses = camera_poses(robot.heard["trajectory"])
    assert process.stop() == 0
    robot.until(lambda: robot.node.count_publishers("/mapping_node/map") == 0, 60)
    robot.forget()
    return robot, tmp_path / "map", poses


def newest(robot):
    return robot.heard["localisation"][-1] if robot.heard["localisation"] else None


def until_state(robot, state):
    def said():
        message = newest(robot)
        return message if message is not None and message.state == state else None

    return robot.until(said, 90, f"{state}; newest: {newest(robot)}")


def test_found_lost_and_found_again_over_dds(saved_map, start_mapping, tmp_path):
    robot, folder, mapped = saved_map
    process = start_mapping(OPTIONS, **MAP, mode="localisation", load_path=str(folder))
    robot.until_active()
    first = until_state(robot, "lost")
    assert first.mode == "localisation" and first.reason and first.checked.sec == 0
    robot.show(range(1, 33, 2), rate=10.0)
    found = until_state(robot, "localised")
    robot.until(lambda: robot.transforms(*CAMERA), 60, "a transform")
    scale, R, shift, _ = world_from_map(mapped, robot.city)
    truth = {robot.city.stamp_ns(i): robot.city.T_world_camera[i] for i in range(60)}
    for transform in robot.transforms(*CAMERA):
        T = transform_to_matrix(transform)
        true = truth[stamp_to_ns(transform.header.stamp)]
        assert np.linalg.norm(scale * R @ T[:3, 3] + shift - true[:3, 3]) < 0.3
    assert stamp_to_ns(found.checked) > 0 and found.pose.covariance[0] < 1.0

    robot.show([43])  # 1.2 s later: it may have been carried meanwhile
    lost = until_state(robot, "lost")
    assert "gap" in lost.reason and stamp_to_ns(lost.since) > stamp_to_ns(found.since)
    assert lost.pose.covariance[0] > 2.0 * found.pose.covariance[0]
    status = robot.until_status("localisation", state="lost", message="nothing goes to /tf")
    assert "gap" in status["reason"]
    robot.spin(1.5)
    told = len(robot.transforms(*CAMERA))
    stamps = [stamp_to_ns(item.header.stamp) for item in robot.transforms(*CAMERA)]
    assert max(stamps) == robot.city.stamp_ns(31), "that of the last image before"

    wrong = PoseWithCovarianceStamped()
    wrong.header.frame_id = "somewhere"
    wrong.pose.pose.orientation.w = 1.0
    publisher = robot.node.create_publisher(PoseWithCovarianceStamped, "initialpose", 1)
    robot.until(lambda: publisher.get_subscription_count(), 60, "the node to listen")
    publisher.publish(wrong)
    robot.until(lambda: "initialpose is in frame 'somewhere'" in process.output, 60, "a refusal")
    wrong.header.frame_id = "map"
    wrong.pose.pose.position.x = 1000.0
    publisher.publish(wrong)
    robot.until(lambda: "initialpose is compared" in process.output, 60, "a word about it")
    robot.show(range(45, 60, 2), rate=10.0)
    robot.flush()
    until_state(robot, "localised")
    robot.until(lambda: len(robot.transforms(*CAMERA)) > told, 60, "transforms again")
    last = transform_to_matrix(robot.transforms(*CAMERA)[-1])
    assert np.abs(last[:3, 3]).max() < 500.0, "the wrong guess was not believed"

    assert not robot.call("set_mode", mode="flying").success
    answer = robot.call("set_mode", mode="mapping")
    assert answer.success and "mapping" in answer.message
    robot.until(lambda: newest(robot).mode == "mapping" and not newest(robot).state, 60)
    assert process.stop() == 0 and "Traceback" not in process.output
