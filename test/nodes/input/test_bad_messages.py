"""No message ends the node: each bad one is counted by its kind and told, and mapping goes on."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
import cv2
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage, Imu
from tf2_msgs.msg import TFMessage

from scal3r_ros.nodes.base.conversions import fill, header

pytestmark = [pytest.mark.ros, pytest.mark.slow]
NAN = float("nan")


def transform(parent: str, child: str, w: float = 1.0, x: float = 0.0, stamp_ns: int = 0):
    message = TransformStamped(header=header(parent, stamp_ns), child_frame_id=child)
    message.transform.rotation.w, message.transform.translation.x = w, x
    return message


BAD_TRANSFORMS = [
    transform("base_link", "camera", w=0.0),
    transform("base_link", "camera", w=NAN),
    transform("base_link", "camera", x=NAN),
    transform("base_link", ""),
    transform("", "camera"),
    transform("camera", "camera"),
    transform("base_link", "camera", stamp_ns=-5_000_000_000),
]
LOOP = [transform("a", "b"), transform("b", "c"), transform("c", "a")]


def odometry(stamp_ns: int, x: float = 0.0, w: float = 1.0) -> Odometry:
    message = Odometry(header=header("odom", stamp_ns), child_frame_id="base_link")
    message.pose.pose.orientation.w, message.pose.pose.position.x = w, x
    return message


def lens(count: int) -> CameraInfo:
    k = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    model = "equidistant" if count == 5 else "plumb_bob"
    return CameraInfo(width=64, height=48, distortion_model=model, d=[0.1] * count, k=k)


def test_transforms_odometry_gravity_and_calibration(start_mapping, make_robot, tmp_path):
    options = {"frames": 60}
    settings = {"input.odometry": True, "map.alignment": "imu", "tf.base_frame": "a"}
    process, robot = start_mapping(options, **settings), make_robot(options)
    send_odometry = robot.node.create_publisher(Odometry, "odom", 50)
    send_imu = robot.node.create_publisher(Imu, "imu", 50)
    robot.until_active()
    robot.until(send_odometry.get_subscription_count, what="odometry connected")
    robot.until(send_imu.get_subscription_count, what="imu connected")
    robot.show(range(2))  # the camera's frame is known: odometry asks TF for the mount
    for kind in BAD_TRANSFORMS:
        robot.tf.publish(TFMessage(transforms=[kind]))
    robot.tf.publish(TFMessage(transforms=[*BAD_TRANSFORMS[:2], *LOOP]))
    stamp = robot.city.stamp_ns(3)
    for message in (
        odometry(-7_000_000_000), odometry(0), odometry(stamp, x=NAN), odometry(stamp, w=0.0),
    ):  # fmt: skip
        send_odometry.publish(message)
    gravity = Imu(header=header("c", stamp))
    gravity.linear_acceleration.z = NAN
    for message in (gravity, Imu(header=header("c", -1)), Imu(header=header("c", 0))):
        send_imu.publish(message)
    for count in (3, 5, 6):
        robot.camera_info.publish(lens(count))
    robot.until_status("input", malformed_tf="9", malformed_odom="4", malformed_imu="3")
    robot.until_status("input", malformed_camera_info="3")
    robot.show(range(2, 24))
    robot.flush()
    robot.until_status("input", decoded="24", **{"failed callbacks": "0"})
    answer = robot.call("save_map", path=str(tmp_path / "map"))
    assert answer.success, answer.message
    for words in (
        "ignored a message (tf): ", "ignored a message (odom): ", "ignored a message (imu): ",
        "ignored a message (camera_info): ",
    ):  # fmt: skip
        assert words in process.output
    assert process.stop() == 0 and "Traceback" not in process.output


def test_images_that_declare_too_much_or_hold_nothing(start_mapping, make_robot, tmp_path):
    options = {"frames": 60}
    settings = {"input.image_transport": "compressed", "input.max_pixels": 5000}
    process, robot = start_mapping(options, **settings), make_robot(options)
    robot.image = robot.node.create_publisher(CompressedImage, "image/compressed", 100)
    robot.until_active()

    def show(index: int, data: bytes | None = None) -> None:
        frame = robot.city.frame(index)
        png = cv2.imencode(".png", frame.rgb[..., ::-1])[1].tobytes() if data is None else data
        pixels = fill(np.frombuffer(png, np.uint8), "B")
        head = header("camera_optical_frame", frame.stamp_ns)
        robot.image.publish(CompressedImage(header=head, format="png", data=pixels))
        robot.spin(0.03)

    for index in range(10):
        show(index)
    whole = cv2.imencode(".png", robot.city.frame(0).rgb)[1].tobytes()
    large = cv2.imencode(".png", np.zeros((100, 100, 3), np.uint8))[1].tobytes()
    for number, data in enumerate((b"", b"no picture", whole[:200], large, b"\xff\xd8\xff\xd9")):
        show(10 + number, data)
    for index in range(15, 30):
        show(index)
    robot.flush()
    robot.until_status("input", malformed="5", decoded="25")
    assert "dropped a malformed image: " in process.output
    status = robot.fresh_status("inference")
    assert status["state"] == "ready" and "failed" not in status
    answer = robot.call("save_map", path=str(tmp_path / "map"))
    assert answer.success, answer.message
    assert process.stop() == 0 and "Traceback" not in process.output


def test_a_camera_without_stamps_and_one_without_pictures_are_errors(start_mapping, make_robot):
    process, robot = start_mapping({"frames": 60}), make_robot({"frames": 60})
    robot.until_active()
    for index in range(4):
        robot.image.publish(robot.image_message(index, stamp_ns=0))
    robot.until_status("input", level=2, message="no image on /image has a time stamp")
    for index in range(5, 9):
        message = robot.image_message(index)
        message.encoding, message.header.frame_id = "hsv9", "/camera_optical_frame"
        robot.image.publish(message)
        robot.spin(0.05)
    robot.until_status("input", level=2, message="encoding 'hsv9' is not supported")
    robot.until_status("input", level=2, message="no image can be used")
    robot.show(range(9, 20))
    robot.until_status("input", decoded="10")  # one is held for sorting
    told = robot.fresh_status("input")["message"]
    assert "no image" not in told and "not supported" not in told
    assert "changed their frame" not in process.output, "a leading slash means the same frame"
    assert process.stop() == 0 and "Traceback" not in process.output
