"""Runs `oracle_node.py` as a process and talks to it over DDS as a robot would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from oracle_node import DEFAULTS, make_city
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from scal3r_ros.msg import ChunkTrajectory, Localisation
from scal3r_ros.nodes.base.conversions import fill, header, matrix_to_transform
from scal3r_ros.srv import Export, LoadMap, SaveMap, SetMode

PATIENCE = 60.0
"""Seconds that a busy machine may take for what an idle one does at once."""
SCRIPT = Path(__file__).with_name("oracle_node.py")
REPOSITORY = Path(__file__).resolve().parents[2]
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
SMALL_CHUNKS = {"chunk.size": 8, "chunk.overlap": 4, "loop.enabled": False}
OUTPUTS = {
    "trajectory": (ChunkTrajectory, 50),
    "pose": (PoseWithCovarianceStamped, 50),
    "odometry": (Odometry, 500),
    "path": (PathMessage, LATCHED),
    "cloud": (PointCloud2, 200),
    "map": (PointCloud2, LATCHED),
    "depth": (Image, 50),
    "confidence": (Image, 50),
    "camera_info": (CameraInfo, 50),
    "graph": (MarkerArray, LATCHED),
    "localisation": (Localisation, LATCHED),
}


def yaml_value(value) -> str:
    return json.dumps(value)


NETWORK = {"model.reconstructor": "scal3r", "tracking.kind": "none"}
"""The oracle stands for it, with the options that suit it."""


class MappingProcess:
    """A running node process; `stop` returns its exit code."""

    def __init__(self, log: Path, options: dict | None = None, **parameters) -> None:
        self.log = log
        arguments = []
        for name, value in {**NETWORK, **SMALL_CHUNKS, **parameters}.items():
            arguments += ["-p", f"{name}:={yaml_value(value)}"]
        self.handle = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(options or {}), "--ros-args", *arguments],
            stdout=self.handle,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGINT, timeout: float = 30.0) -> int:
        """Send a signal and wait; the test fails if it takes longer than `timeout` seconds."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        finally:
            self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.handle.close()


class Robot:
    """Camera, TF and a listener to everything that the mapping node says."""

    def __init__(self, ros, options: dict | None = None, camera_qos=10, listen=True) -> None:
        self.ros = ros
        self.city = make_city({**DEFAULTS, **(options or {})})
        self.node = ros.create_node("robot")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.heard: dict[str, list] = defaultdict(list)
        self.image = self.node.create_publisher(Image, "image", camera_qos)
        self.camera_info = self.node.create_publisher(CameraInfo, "camera_info", camera_qos)
        self.tf = self.node.create_publisher(TFMessage, "/tf", 100)
        self.tf_static = self.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        if listen:
            for name, (kind, qos) in OUTPUTS.items():
                self.listen(kind, f"/mapping_node/{name}", qos, name)
            self.listen(TFMessage, "/tf", 100, "tf")
            self.listen_to_diagnostics()
        self.clients = {
            name: self.node.create_client(kind, f"/mapping_node/{name}")
            for name, kind in {
                "reset": Trigger, "set_paused": SetBool, "flush": Trigger, "finalize": Trigger,
                "save_map": SaveMap, "load_map": LoadMap, "export": Export,
                "set_mode": SetMode,
                "change_state": ChangeState, "get_state": GetState,
            }.items()
        }  # fmt: skip

    def listen(self, kind, topic: str, qos, name: str):
        return self.node.create_subscription(kind, topic, self.heard[name].append, qos)

    def listen_to_diagnostics(self) -> None:
        self.listen(DiagnosticArray, "/diagnostics", 10, "diagnostics")

    def forget(self) -> None:
        """Drop everything heard so far."""
        for messages in self.heard.values():
            messages.clear()

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()

    def spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def until(self, condition: Callable, timeout: float = PATIENCE, what: str = "condition"):
        """Spin until the condition holds; what it gave."""
        deadline = time.monotonic() + timeout
        while not (result := condition()):
            assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
            self.executor.spin_once(timeout_sec=0.02)
        return result

    def call(self, name: str, timeout: float = PATIENCE, **fields):
        """Call a service of the node; its answer, of long work when that is done."""
        end = time.monotonic() + timeout
        while True:
            answer = self.call_once(name, timeout, **fields)
            goes_on = "still running" in getattr(answer, "message", "")
            if not goes_on or time.monotonic() > end:
                return answer

    def call_once(self, name: str, timeout: float = PATIENCE, **fields):
        """Call a service of the node; the first answer."""
        client = self.clients[name]
        self.until(client.service_is_ready, timeout, f"service {name}")
        future = client.call_async(client.srv_type.Request(**fields))
        return self.until(lambda: future.done() and future.result(), timeout, f"answer of {name}")

    def state(self) -> str:
        """Asked again where an answer got lost, as it may before DDS has matched both sides."""
        for _ in range(5):
            with contextlib.suppress(AssertionError):
                return self.call("get_state", PATIENCE / 6).current_state.label
        return self.call("get_state").current_state.label

    def change_state(self, name: str) -> bool:
        number = getattr(Transition, f"TRANSITION_{name.upper()}")
        return self.call("change_state", transition=Transition(id=number)).success

    def until_state(self, label: str, timeout: float = PATIENCE) -> None:
        self.until(lambda: self.state() == label, timeout, f"state {label}")

    def until_active(self) -> None:
        """The node is active and its subscriptions are connected with our publishers."""
        self.until_state("active")
        self.until(lambda: self.image.get_subscription_count() > 0, PATIENCE, "camera connected")
        self.until(
            lambda: all(self.node.count_publishers(f"/mapping_node/{name}") for name in OUTPUTS),
            PATIENCE,
            "outputs connected",
        )
        self.until(self.camera_is_heard_well, PATIENCE, "a subscription as reliable as the camera")
        self.spin(0.3)

    def camera_is_heard_well(self) -> bool:
        """The node has found out that it may ask all cameras for reliability.

        Its former subscription stays until the new one has heard something.
        """
        publishers = self.node.get_publishers_info_by_topic(self.image.topic_name)
        subscriptions = self.node.get_subscriptions_info_by_topic(self.image.topic_name)
        offers = {info.qos_profile.reliability for info in publishers}
        asked = [info.qos_profile.reliability for info in subscriptions]
        former = [ReliabilityPolicy.BEST_EFFORT]
        reliable = [ReliabilityPolicy.RELIABLE]
        return offers != set(reliable) or asked == reliable or sorted(asked) == reliable + former

    def image_message(self, index: int, stamp_ns: int | None = None) -> Image:
        frame = self.city.frame(index)
        height, width = frame.rgb.shape[:2]
        return Image(
            header=header("camera_optical_frame", frame.stamp_ns if stamp_ns is None else stamp_ns),
            height=height,
            width=width,
            encoding="rgb8",
            step=3 * width,
            data=fill(frame.rgb, "B"),
        )

    def show(self, indices, rate: float = 40.0) -> None:
        """Publish city frames at `rate`."""
        for index in indices:
            self.image.publish(self.image_message(index))
            self.spin(1.0 / rate)

    def flush(self) -> None:
        """Have everything mapped, and hear all that the node says about it."""
        self.image.wait_for_all_acked(Duration(seconds=20))  # the service may overtake an image
        answer = self.call("flush", timeout=90.0)
        assert answer.success, answer.message
        self.until_quiet()

    def until_quiet(self, seconds: float = 0.5, timeout: float = PATIENCE) -> None:
        """Spin until no map output has come for `seconds`; topics arrive in any order."""
        deadline = time.monotonic() + timeout
        heard, since = -1, time.monotonic()
        while time.monotonic() < min(since + seconds, deadline):
            self.executor.spin_once(timeout_sec=0.02)
            now = sum(len(self.heard[name]) for name in OUTPUTS if name != "localisation")
            if now != heard:
                heard, since = now, time.monotonic()

    def send_static(self, T: np.ndarray, parent: str, child: str) -> None:
        self.tf_static.publish(TFMessage(transforms=[matrix_to_transform(T, parent, child, 0)]))

    def send_tf(self, T: np.ndarray, parent: str, child: str, stamp_ns: int) -> None:
        self.tf.publish(TFMessage(transforms=[matrix_to_transform(T, parent, child, stamp_ns)]))

    def status(self, concern: str) -> dict | None:
        """Newest diagnostics of a concern: its values with `level` and `message`."""
        for array in reversed(self.heard["diagnostics"]):
            for status in array.status:
                if status.name == f"mapping_node: {concern}":
                    values = {item.key: item.value for item in status.values}
                    return {**values, "level": status.level[0], "message": status.message}
        return None

    def fresh_status(self, concern: str) -> dict:
        """Diagnostics sent after this call."""
        self.heard["diagnostics"].clear()
        return self.until(lambda: self.status(concern), PATIENCE, f"diagnostics {concern}")

    def until_status(self, concern: str, timeout: float = PATIENCE, **values) -> dict:
        """Diagnostics of a concern once they show `values`; a report sent earlier may lag behind.

        `message` may be a part of the text. Raises AssertionError with the newest report.
        """

        def shown() -> dict | None:
            status = self.status(concern)
            if status is None:
                return None
            said = values.get("message", "") in status["message"]
            exact = {key: value for key, value in values.items() if key != "message"}
            return status if said and exact.items() <= status.items() else None

        try:
            return self.until(shown, timeout, f"diagnostics {concern} with {values}")
        except AssertionError as error:
            raise AssertionError(f"{error}; newest: {self.status(concern)}") from None

    def transforms(self, parent: str, child: str) -> list:
        """All transforms heard of one edge: (stamp_ns, message)."""
        return [
            item
            for message in self.heard["tf"]
            for item in message.transforms
            if (item.header.frame_id, item.child_frame_id) == (parent, child)
        ]
