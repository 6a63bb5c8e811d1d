"""Images that arrive before their calibration: they wait for it, but not for ever."""

import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from packet_videos import h264
from recordings import scene
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from scal3r_ros.nodes.base.conversions import fill, header
from scal3r_ros.nodes.base.node_config import NodeConfig, NodeInputConfig, TfConfig
from scal3r_ros.nodes.input import image_input
from scal3r_ros.nodes.input.frame_decoder import decode
from scal3r_ros.nodes.input.frame_queue import FrameQueue
from scal3r_ros.nodes.input.image_input import ImageInput
from scal3r_ros.nodes.input.size_change import SizeChange
from scal3r_ros.options import from_dict

pytestmark = pytest.mark.ros
HEIGHT, WIDTH, STEP_NS = 48, 64, 40_000_000
"""Frames come faster than the reordering lets them go: one is always held."""


class Camera:
    """Publishes a grid and, when asked, the calibration of its lens."""

    def __init__(self, node) -> None:
        self._node, self.shown, self._info = node, 0, None
        self._images = node.create_publisher(Image, "image", 10)

    def show(self) -> None:
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        pixels[::8], pixels[:, ::8] = 255, 255
        self.shown += 1
        self._images.publish(
            Image(
                header=header("camera_optical_frame", self.shown * STEP_NS), height=HEIGHT,
                width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=fill(pixels, "B"),
            )
        )  # fmt: skip

    def announce(self) -> None:
        self._info = self._node.create_publisher(CameraInfo, "camera_info", 10)

    def calibrate(self) -> None:
        k = [50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]
        self._info.publish(
            CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob",
                       d=[-0.3, 0.1, 0.0, 0.0, 0.0], k=k)
        )  # fmt: skip


@pytest.fixture
def stream(ros, node, spin_until):
    """The input under test, its queue, a camera, and a function that waits for a condition."""
    driver, frames = ros.create_node("driver"), FrameQueue(NodeConfig().queue)
    received = ImageInput(node, NodeConfig(), frames)
    received.accepting = True
    camera = Camera(driver)

    def until(condition, timeout=20.0):
        received.adapt()
        return spin_until(condition, node, driver, timeout=timeout)

    until(lambda: driver.count_subscribers("/image") and node.count_publishers("/image"))
    until(lambda: camera._images.get_subscription_count())

    def show(count):
        for _ in range(count):
            camera.show()
            until(lambda: received.counts["received"] == camera.shown)

    yield received, frames, camera, until, show
    received.destroy()
    driver.destroy_node()


def taken(frames):
    return [frames.pop() for _ in range(len(frames))]


def test_the_first_images_are_undistorted_with_a_calibration_that_comes_after_them(
    stream, monkeypatch
):
    """Discovery of the second topic and its first message may both be late."""
    monkeypatch.setattr(image_input, "ANNOUNCEMENT_WAIT", 60.0)
    received, frames, camera, until, show = stream
    show(5)
    camera.announce()
    until(lambda: camera._info.get_subscription_count())
    camera.calibrate()
    until(lambda: received.calibration is not None)
    show(5)
    received.release_held()
    tickets = taken(frames)
    assert [ticket.stamp_ns // STEP_NS for ticket in tickets] == list(range(1, 11))
    assert all(ticket.calibration is received.calibration for ticket in tickets)
    first = decode(tickets[0], 0, NodeInputConfig()).frame
    raw = decode(tickets[0], 0, NodeInputConfig(rectify=False)).frame
    np.testing.assert_array_equal(first.rgb, received.calibration.rectify(raw.rgb))
    assert (first.rgb != raw.rgb).any()
    assert received.counts["uncalibrated"] == 0


def test_images_without_any_camera_info_are_not_held_back(stream):
    received, frames, camera, until, show = stream
    while not len(frames):
        show(1)
        time.sleep(0.05)
    assert camera.shown * STEP_NS < 2_000_000_000, "half a second of waiting, not two"
    assert received.counts["uncalibrated"] == len(frames)


def test_a_silent_camera_info_is_waited_for_two_seconds_of_images(stream):
    received, frames, camera, until, show = stream
    camera.announce()
    until(lambda: camera._info.get_subscription_count())
    show(50)
    assert len(frames) == 0
    show(5)
    assert len(frames) == received.counts["uncalibrated"] >= 50
    camera.calibrate()
    until(lambda: received.calibration is not None)
    show(3)
    assert taken(frames)[-1].calibration is received.calibration


def test_images_without_a_frame_are_of_the_one_that_is_configured(ros, node, spin_until):
    config = NodeConfig(tf=TfConfig(camera_frame="front_optical"))
    received, driver = ImageInput(node, config, FrameQueue(config.queue)), ros.create_node("driver")
    received.accepting = True
    images = driver.create_publisher(Image, "image", 10)
    pixels = fill(np.zeros((4, 4, 3), np.uint8), "B")
    image = Image(height=4, width=4, encoding="rgb8", step=12, data=pixels)

    def heard():
        image.header = header("", STEP_NS)
        images.publish(image)
        return received.camera_frame

    assert spin_until(heard, node, driver, timeout=20.0) == "front_optical"
    received.destroy()
    driver.destroy_node()


@pytest.mark.parametrize("live", [True, False], ids=["camera", "bag"])
def test_time_goes_on_without_images_only_where_stamps_are_those_of_the_clock(stream, live):
    """Nav2 needs map to odom also while the camera is dead; a bag may only be paused."""
    received, frames, camera, until, show = stream
    received.config = from_dict(NodeConfig, {"input.timeout": 1.0})
    first_ns = time.time_ns() if live else 10**9
    camera.shown = first_ns // STEP_NS
    received.counts["received"] = camera.shown
    show(1)
    newest = camera.shown * STEP_NS
    until(lambda: received.stream_now() >= newest + 1_000_000_000)
    time.sleep(0.5)
    assert (received.stream_now() >= newest + 1_300_000_000) == live


def packets_of(node, packets, received, spin):
    """Publish H.264 packets as a camera does; returns what the input makes of them."""
    publisher = node.create_publisher(CompressedImage, "image/compressed", 50)
    spin(lambda: publisher.get_subscription_count())
    for number, (frame_id, data) in enumerate(packets, 1):
        head = header("camera_optical_frame", (frame_id + 1) * STEP_NS)
        pixels = fill(np.frombuffer(data, np.uint8), "B")
        publisher.publish(CompressedImage(header=head, format="h264", data=pixels))
        spin(lambda number=number: received.counts["received"] == number)
    received.release_held()


@pytest.fixture
def video_input(ros, node, spin_until):
    config = from_dict(NodeConfig, {"input.image_transport": "compressed",
                                    "input.camera_info": False})  # fmt: skip
    received = ImageInput(node, config, FrameQueue(config.queue))
    received.accepting = True
    driver = ros.create_node("driver")
    yield received, driver, lambda condition: spin_until(condition, node, driver, timeout=20.0)
    received.destroy()
    driver.destroy_node()


def test_packets_of_video_are_decoded_in_order_whatever_is_lost(video_input):
    pytest.importorskip("av", reason="PyAV is optional")
    received, driver, spin = video_input
    made = scene(12)
    packets = h264(made)
    packets_of(driver, packets[:3] + packets[4:], received, spin)
    tickets = taken(received.frames)
    assert [t.stamp_ns // STEP_NS for t in tickets] == [1, 2, 3, 7, 8, 9, 10, 11, 12]
    for ticket in tickets:
        frame = decode(ticket, 0, NodeInputConfig()).frame
        expected = made[ticket.stamp_ns // STEP_NS - 1].rgb
        assert np.abs(frame.rgb.astype(int) - expected).mean() < 12
    assert received.counts["lost_packets"] == 2 and not received.encoding_problem


def test_without_the_library_the_topic_is_named(video_input, monkeypatch):
    received, driver, spin = video_input
    monkeypatch.setitem(sys.modules, "av", None)
    packets_of(driver, [(i, b"\0\0\0\1\x67\0") for i in range(3)], received, spin)
    assert "H.264 video, which need the library PyAV: pip install av" in received.encoding_problem
    assert received.trouble.counts["malformed_image"] == 3 and not len(received.frames)


def test_one_odd_image_is_left_out_and_a_lasting_size_is_followed():
    small, large = np.zeros((48, 64, 3), np.uint8), np.zeros((96, 128, 3), np.uint8)
    changes = SizeChange()
    assert not changes(small)
    for odd in (large, small.transpose(1, 0, 2), large, large):
        with pytest.raises(ValueError, match="those before are 64 x 48"):
            changes(odd)
    assert not changes(small)
    for _ in range(2):
        with pytest.raises(ValueError, match="128 x 96"):
            changes(large)
    assert changes(large) and not changes(large)
    with pytest.raises(ValueError, match="those before are 128 x 96"):
        changes(small)
