"""What arrives from cameras and clocks: every kind of sender, bad messages, bad stamps."""

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from geometry_msgs.msg import Vector3
from map_reading import camera_poses
from mapping_process import BEST_EFFORT
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu

from scal3r_ros.nodes.base.conversions import fill, header, ns_to_stamp, stamp_to_ns
from scal3r_ros.nodes.input.frame_queue import BLOCK_SLACK

pytestmark = pytest.mark.ros


def calibration(city, **changes):
    K = city.intrinsics.copy()
    K[:2, 2] -= 0.5
    message = CameraInfo(
        header=header("camera_optical_frame", 1),
        width=city.width,
        height=city.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=K.reshape(-1),
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_malformed_messages_are_counted_and_left_out(start_mapping, make_robot):
    options = {"frames": 60}
    process, robot = start_mapping(options), make_robot(options)
    robot.until_active()
    good = robot.image_message
    stamp = robot.city.stamp_ns
    data = fill(np.zeros(10, np.uint8), "B")
    bad = [
        Image(header=header("c", stamp(8)), height=48, width=64, encoding="rgb8", step=192,
              data=data),
        Image(header=header("c", stamp(9)), height=0, width=0, encoding="rgb8", step=0, data=data),
        Image(header=header("c", stamp(10)), height=48, width=64, encoding="hsv9", step=192,
              data=fill(np.zeros(48 * 192, np.uint8), "B")),
        Image(header=header("c", stamp(11))),
    ]  # fmt: skip
    robot.camera_info.publish(calibration(robot.city, k=np.full(9, np.nan)))
    robot.camera_info.publish(calibration(robot.city, distortion_model="fish_bowl", d=[0.1]))
    robot.camera_info.publish(calibration(robot.city, k=np.zeros(9)))
    robot.show(range(8))
    for message in bad:
        robot.image.publish(message)
        robot.spin(0.03)
    robot.image.publish(good(12, stamp_ns=0))
    robot.show(range(12, 24))
    robot.flush()
    robot.until_status("input", malformed="4", decoded="20", malformed_camera_info="2")
    robot.until_status("time", unstamped="1")
    assert process.output.count("dropped a malformed image") == 1, "throttled"
    assert "numbers that are not finite" in process.output
    robot.until(lambda: len(camera_poses(robot.heard["trajectory"])) == 20, 60, "20 poses")
    assert process.stop() == 0 and "Traceback" not in process.output


def test_reliable_and_best_effort_cameras_and_a_mismatch(start_mapping, make_robot):
    """Automatic reliability hears both; a demand that a camera cannot meet is told by name."""
    options = {"frames": 60}
    reliable, strict = make_robot(options, camera_qos=10), None
    process = start_mapping(options)
    reliable.until_active()

    def asked():
        infos = reliable.node.get_subscriptions_info_by_topic("/image")
        return [info.qos_profile.reliability for info in infos]

    reliable.until(lambda: ReliabilityPolicy.RELIABLE in asked(), 60, "a reliable subscription")
    reliable.camera_info.publish(calibration(reliable.city, d=[-0.2, 0.05, 0.0, 0.0, 0.0]))
    reliable.show(range(8))
    reliable.until(lambda: asked() == [ReliabilityPolicy.RELIABLE], 60, "the old one gone")
    reliable.until_status("input", received="8")
    weak = reliable.node.create_publisher(Image, "image", BEST_EFFORT)
    reliable.until(lambda: ReliabilityPolicy.BEST_EFFORT in asked(), 60, "a weaker subscription")
    reliable.until(lambda: weak.get_subscription_count() == 1, 60)
    for i in range(8, 12):
        weak.publish(reliable.image_message(i))
        reliable.spin(0.05)
    reliable.until(lambda: asked() == [ReliabilityPolicy.BEST_EFFORT], 60, "the old one gone")
    reliable.until_status("input", received="12", level=0)
    assert process.stop() == 0

    reliable.until(lambda: reliable.node.count_publishers("/mapping_node/map") == 0, 60)
    strict = start_mapping(options, **{"qos.image.reliability": "reliable"})
    reliable.until_active()
    # A name that discovery brings a moment after the topic is unknown at first.
    told = reliable.until(
        lambda: "robot offers best_effort" in reliable.fresh_status("input")["message"],
        60,
        "a mismatch",
    )
    message = reliable.status("input")["message"]
    assert told and "cannot be heard" in message and "ask for reliable" in message
    assert strict.stop() == 0


def test_stamps_that_jump_repeat_and_pause(start_mapping, make_robot):
    """One stream with a duplicate, small disorder, a forward gap and two laps of a bag."""
    options = {"frames": 60}
    settings = {"gate.max_gap": 1.0, "time.reorder_window": 0.25}
    process, robot = start_mapping(options, **settings), make_robot(options)
    robot.until_active()
    order = [
        0,
        1,
        1,
        2,
        4,
        3,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        30,
        31,
        32,
        33,
        34,
        35,
        36,
        37,
        38,
        39,
        40,
        41,
    ]
    robot.show(order)
    robot.flush()
    robot.until_status("time", duplicate="1", reordered="1", gap="1")
    robot.until(lambda: len(camera_poses(robot.heard["trajectory"])) == 24, 60, "24 poses")
    sessions = {message.session for message in robot.heard["trajectory"]}
    assert sessions == {0, 1}, "the gap starts a chain of its own"
    robot.until_status("tf", level=1)

    robot.forget()
    robot.show(range(16))
    robot.flush()
    assert float(robot.until_status("time", jump_back="1")["last jump [s]"]) < -2.0
    robot.until(lambda: any(m.session == 2 for m in robot.heard["trajectory"]), 60, "a new session")
    poses = camera_poses(m for m in robot.heard["trajectory"] if m.session == 2)
    assert min(poses) == robot.city.stamp_ns(0), "no frame of the new lap is lost"
    assert process.stop() == 0 and "Traceback" not in process.output


def test_gravity_levels_the_map_and_old_frames_are_ignored(start_mapping, make_robot):
    """An IMU mounted askew on a camera that looks down; then stamps go back and catch up."""
    options = {"frames": 60}
    settings = {"map.alignment": "imu", "time.on_jump_back": "ignore_frames"}
    process, robot = start_mapping(options, **settings), make_robot(options)
    imu = robot.node.create_publisher(Imu, "imu", BEST_EFFORT)
    T_camera_imu = np.eye(4)
    T_camera_imu[:3, :3] = Rotation.from_euler("xyz", [40, -25, 110], degrees=True).as_matrix()
    turns = robot.city.T_world_camera[:, :3, :3]
    up = turns[0] @ np.array([0.0, -np.cos(0.3), np.sin(0.3)])
    up_camera = {robot.city.stamp_ns(i): turns[i].T @ up for i in range(60)}
    robot.until_active()
    robot.until(lambda: imu.get_subscription_count() == 1)
    robot.send_static(T_camera_imu, "camera_optical_frame", "imu_link")
    robot.spin(0.5)
    for i in range(25):
        stamp = robot.city.stamp_ns(i)
        x, y, z = 9.81 * T_camera_imu[:3, :3].T @ up_camera[stamp]
        reading = Imu(header=header("imu_link", stamp))
        reading.linear_acceleration = Vector3(x=x, y=y, z=z)
        imu.publish(reading)
        robot.show([i])
    robot.until_status("input", received="25")
    robot.show(range(12))
    robot.until_status("time", ignored="12")
    robot.show(range(25, 40))
    robot.flush()
    poses = robot.until(
        lambda: (
            len(camera_poses(robot.heard["trajectory"])) == 40
            and camera_poses(robot.heard["trajectory"])
        ),
        what="40 poses",
    )
    assert sorted(poses) == [robot.city.stamp_ns(i) for i in range(40)]
    assert {message.session for message in robot.heard["trajectory"]} == {0}, "one chain goes on"
    for stamp, pose in poses.items():
        np.testing.assert_allclose(pose[:3, :3] @ up_camera[stamp], [0, 0, 1], atol=1e-4)
    assert robot.status("map")["alignment"] == "imu"
    assert process.stop() == 0 and "Traceback" not in process.output


def test_simulated_time_that_starts_late_and_loops(start_mapping, make_robot):
    """Before /clock time is unknown, not zero; when it jumps back the map is emptied if asked."""
    options = {"frames": 60}
    settings = {"use_sim_time": True, "time.on_jump_back": "reset"}
    process, robot = start_mapping(options, **settings), make_robot(options)
    clock = robot.node.create_publisher(Clock, "/clock", 20)
    robot.until_active()
    assert "/clock is silent" in robot.fresh_status("time")["message"]

    def lap(indices):
        for i in indices:
            clock.publish(Clock(clock=ns_to_stamp(robot.city.stamp_ns(i))))
            robot.image.publish(robot.image_message(i))
            robot.spin(0.03)

    lap(range(40, 60))
    robot.until(lambda: robot.fresh_status("time")["level"] == 0, 60, "a running clock")
    diagnostics = robot.heard["diagnostics"][-1]
    assert stamp_to_ns(diagnostics.header.stamp) <= robot.city.stamp_ns(60)
    before = robot.until(lambda: robot.heard["trajectory"], 60)[-1]
    lap(range(12))
    robot.flush()
    robot.until_status("time", jump_back="1")
    new_lap = [robot.city.stamp_ns(i) for i in range(12)]

    def only_the_new_lap():
        path = robot.heard["path"][-1]
        return [stamp_to_ns(item.header.stamp) for item in path.poses] == new_lap

    robot.until(only_the_new_lap, 60, "a path of the new lap alone")
    assert before.header.stamp.sec >= 4
    assert process.stop() == 0 and "Traceback" not in process.output


def test_compressed_images_and_a_camera_that_waits(start_mapping, make_robot):
    """Policy block: no frame is dropped by a worker that is too slow, the middleware holds them."""
    options = {"frames": 60, "seconds": 0.5}
    settings = {
        "input.image_transport": "compressed", "queue.policy": "block", "queue.max_frames": 4,
        "qos.image.depth": 100,
    }  # fmt: skip
    process, robot = start_mapping(options, **settings), make_robot(options)
    robot.image = robot.node.create_publisher(CompressedImage, "image/compressed", 100)
    robot.until_active()
    for i in range(40):
        frame = robot.city.frame(i)
        _, png = cv2.imencode(".png", frame.rgb[..., ::-1])
        robot.image.publish(
            CompressedImage(
                header=header("camera_optical_frame", frame.stamp_ns),
                format="rgb8; png compressed bgr8",
                data=fill(png.ravel(), "B"),
            )
        )
        robot.spin(0.02)
    held = robot.fresh_status("input")
    assert int(held["received"]) < 40, "the middleware holds what the queue cannot take"
    assert int(held["queued"]) - int(held["decoded"]) <= 4 + BLOCK_SLACK + 1  # one at work
    robot.until_status("input", 30, processed="40", dropped="0")
    robot.flush()
    robot.until(lambda: len(camera_poses(robot.heard["trajectory"])) == 40, 60, "40 poses")
    assert process.stop() == 0 and "Traceback" not in process.output


def test_measured_depth_beside_the_images_makes_the_map_metric(start_mapping, make_robot):
    """Millimetres and metres, stamps a little beside the image's; bad ones cost themselves only."""
    options = {"frames": 60, "length": 30.0}
    settings = {"qos.depth_image.depth": 20, "qos.depth_image.reliability": "reliable"}
    process = start_mapping(options, **{"scale.source": "depth"}, **settings)
    robot = make_robot(options)
    city, depth = robot.city, robot.node.create_publisher(Image, "depth", 10)
    robot.until_active()
    robot.until(lambda: depth.get_subscription_count() == 1, 60, "a subscription")

    def depth_message(i, encoding):
        metres = np.nan_to_num(city.render(np.array([i]))[0][0], nan=0.0)
        values = metres if encoding == "32FC1" else np.rint(1000 * metres).astype(np.uint16)
        return Image(
            header=header("camera_optical_frame", city.stamp_ns(i) + 5_000_000),
            height=values.shape[0], width=values.shape[1], encoding=encoding,
            step=values.shape[1] * values.itemsize, data=fill(values.ravel().view(np.uint8), "B"),
        )  # fmt: skip

    strange = depth_message(0, "32FC1")
    strange.encoding = "64FC1"
    depth.publish(strange)
    for i in range(24):
        depth.publish(depth_message(i, ("16UC1", "32FC1")[i % 2]))
        robot.image.publish(robot.image_message(i))
        robot.spin(0.05)
    robot.flush()
    robot.until_status("scale", level=0, source="depth", value="1")
    newest = robot.until(
        lambda: [m for m in robot.heard["trajectory"] if m.scale_frozen and m.corrected], 60
    )[-1]
    assert newest.scale == 1.0
    found = np.linalg.norm(np.diff(np.array(newest.positions).reshape(-1, 3), axis=0), axis=1)
    ids = np.array(newest.frame_ids, np.int64)
    true = np.linalg.norm(np.diff(city.T_world_camera[ids, :3, 3], axis=0), axis=1)
    assert found.sum() == pytest.approx(true.sum(), rel=0.05)
    assert "64FC1" in process.output
    assert process.stop() == 0 and "Traceback" not in process.output


def test_wrong_parameters_end_in_one_clear_sentence(start_mapping, make_robot):
    wrong_type = start_mapping(**{"chunk.size": "many"})
    wrong_pair = start_mapping(**{"chunk.size": 4, "chunk.overlap": 6})
    for process, words in ((wrong_type, "chunk.size"), (wrong_pair, "chunk.overlap (6)")):
        assert process.process.wait(30) == 2
        assert words in process.output and "Traceback" not in process.output
    robot = make_robot()
    absent = start_mapping(**{"model.checkpoint": "/nowhere/weights.pt"})
    robot.until_state("unconfigured")
    assert "does not exist" in absent.output
    assert absent.stop() == 0 and "Traceback" not in absent.output
