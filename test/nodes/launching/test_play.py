"""`scal3r play` publishes a bag's bytes in its rhythm, as a real process over real DDS."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent")
from geometry_msgs.msg import PointStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool
from tf2_msgs.msg import TFMessage

from scal3r_ros.nodes.base.conversions import stamp_to_ns
from scal3r_ros.nodes.output.pace import Pace

pytestmark = pytest.mark.ros
START = 1_600_000_000_000_000_000
COUNT, PERIOD_NS = 20, 25_000_000
STORE = get_typestore(Stores.ROS2_HUMBLE)


def make_bag(path: Path, storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """Twenty points at 40 Hz whose x counts them, a latched transform, and a type nobody knows."""
    types = STORE.types
    header, stamp = types["std_msgs/msg/Header"], types["builtin_interfaces/msg/Time"]
    with Writer(path, version=8, storage_plugin=storage) as writer:
        kind = "geometry_msgs/msg/PointStamped"
        points = writer.add_connection("/point", kind, typestore=STORE)
        static = writer.add_connection("/tf_static", "tf2_msgs/msg/TFMessage", typestore=STORE)
        other = writer.add_connection("/other", "std_msgs/msg/String", typestore=STORE)
        message = types["tf2_msgs/msg/TFMessage"](transforms=[])
        writer.write(static, START, STORE.serialize_cdr(message, "tf2_msgs/msg/TFMessage"))
        for i in range(COUNT):
            time_ns = START + i * PERIOD_NS
            message = types[kind](
                header(stamp(time_ns // 10**9, time_ns % 10**9), "map"),
                types["geometry_msgs/msg/Point"](float(i), 0.0, 0.0),
            )
            writer.write(points, time_ns, STORE.serialize_cdr(message, kind))
        text = types["std_msgs/msg/String"]("hello")
        writer.write(other, time_ns, STORE.serialize_cdr(text, "std_msgs/msg/String"))
    return path


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    return make_bag(tmp_path_factory.mktemp("bags") / "points")


@pytest.fixture
def start(ros_domain):
    processes = []

    def run(*arguments) -> subprocess.Popen:
        command = [sys.executable, "-m", "scal3r_ros.nodes.launching.play", *map(str, arguments)]
        processes.append(
            subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        )
        return processes[-1]

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_every_message_in_order_with_its_stamp(tmp_path, storage, start, node, spin_until):
    received, transforms = [], []
    node.create_subscription(PointStamped, "/point", received.append, 100)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(TFMessage, "/tf_static", transforms.append, latched)
    bag = make_bag(tmp_path / "bag", storage)
    process = start(bag, "--wait-for", "/point", "--rate", 4)
    spin_until(lambda: process.poll() is not None and len(received) >= COUNT, node, timeout=20)
    assert process.returncode == 0
    assert [m.point.x for m in received] == list(range(COUNT))
    stamps = [stamp_to_ns(m.header.stamp) for m in received]
    assert stamps == [START + i * PERIOD_NS for i in range(COUNT)]
    assert len(transforms) == 1


def test_rhythm_and_clock(bag, start, node, spin_until):
    """At half speed 25 ms of bag time take 50 ms, and /clock says the bag's time."""
    arrivals, clocks = [], []
    node.create_subscription(
        PointStamped, "/point", lambda m: arrivals.append(time.monotonic()), 99
    )
    node.create_subscription(
        Clock, "/clock", lambda m: clocks.append((time.monotonic(), stamp_to_ns(m.clock))), 100
    )
    process = start(bag, "--wait-for", "/point", "--rate", 0.5, "--clock", 50, "--topics", "/point")
    spin_until(lambda: process.poll() is not None, node, timeout=20)
    assert len(arrivals) == COUNT
    assert np.median(np.diff(arrivals)) == pytest.approx(0.05, rel=0.3)
    wall, bag_time = np.array(clocks).T
    assert len(clocks) > 20 and np.all(np.diff(bag_time) >= 0)
    assert START <= bag_time[0] and bag_time[-1] <= START + COUNT * PERIOD_NS + 10**8
    slope = np.polyfit(wall - wall[0], (bag_time - START) / 1e9, 1)[0]
    assert slope == pytest.approx(0.5, rel=0.15)


def test_loop_begins_again_and_the_clock_goes_back(bag, start, node, spin_until):
    received, clocks = [], []
    node.create_subscription(PointStamped, "/point", lambda m: received.append(m.point.x), 100)
    node.create_subscription(Clock, "/clock", lambda m: clocks.append(stamp_to_ns(m.clock)), 100)
    process = start(bag, "--loop", "--rate", 4, "--wait-for", "/point")
    spin_until(lambda: received.count(0.0) >= 3, node, timeout=20)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0
    assert process.stderr.read().count("Traceback") == 0
    assert min(np.diff(clocks)) < 0
    assert received[: 2 * COUNT] == list(range(COUNT)) * 2


def test_starts_paused_and_goes_on_when_told(bag, start, node, spin_until):
    received = []
    node.create_subscription(PointStamped, "/point", received.append, 100)
    process = start(bag, "--start-paused", "--rate", 4, "--wait-for", "/point")
    client = node.create_client(SetBool, "/bag_player/set_paused")
    spin_until(client.service_is_ready, node)
    quiet_until = time.monotonic() + 0.5
    spin_until(lambda: time.monotonic() > quiet_until, node)
    assert not received
    future = client.call_async(SetBool.Request(data=False))
    spin_until(lambda: process.poll() is not None, node, timeout=20)
    assert future.result().success and len(received) == COUNT


def test_remapping(bag, start, node, spin_until):
    received = []
    node.create_subscription(PointStamped, "/elsewhere", received.append, 100)
    process = start(
        bag, "--rate", 4, "--wait-for", "/point", "--ros-args", "-r", "/point:=/elsewhere"
    )
    spin_until(lambda: process.poll() is not None, node, timeout=20)
    assert len(received) == COUNT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere/bag"], "/nowhere/bag"),
        (["BAG", "--topics", "/lidar"], "no topic /lidar; topics: /other, /point, /tf_static"),
        (["BAG", "--rate", "0"], "rate must be positive"),
        (["BAG", "--wait-for", "/point", "--wait-seconds", "0.2"], "nobody subscribed to /point"),
    ],
)
def test_what_cannot_be_played_is_explained(bag, start, arguments, words):
    process = start(*[str(bag) if a == "BAG" else a for a in arguments])
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert words in errors and "Traceback" not in errors


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_quiet(bag, start, node, spin_until, signal_number):
    received = []
    node.create_subscription(PointStamped, "/point", received.append, 100)
    process = start(bag, "--rate", 0.2, "--wait-for", "/point")
    spin_until(lambda: received, node, timeout=20)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=5)
    assert process.returncode == 0 and "Traceback" not in errors


def test_pace_stands_still_while_paused():
    now = [100.0]
    pace = Pace(2.0, paused=False, now=lambda: now[0])
    pace.restart(5_000_000_000)
    now[0] += 1.5
    assert pace.bag_time() == 8_000_000_000
    assert pace.seconds_until(10_000_000_000) == pytest.approx(1.0)
    pace.set_paused(True)
    now[0] += 60
    assert pace.bag_time() == 8_000_000_000 and pace.seconds_until(9 * 10**9) == float("inf")
    pace.set_paused(False)
    now[0] += 0.5
    assert pace.bag_time() == 9_000_000_000


def test_domain_is_isolated(ros_domain):
    assert os.environ["ROS_DOMAIN_ID"] == str(ros_domain)
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
