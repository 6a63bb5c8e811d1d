"""The mapping node under a camera at 30 Hz while maps of 500,000 points and more are published.

Node and camera are two processes on real DDS, with the default quality of service; a stub of
constant time stands for the network. Counts lost images and times the image callback. Then once
more with real reconstructors (`real_camera.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from scal3r_ros.nodes.base.conversions import fill, header
from scal3r_ros.nodes.bench import real_camera
from scal3r_ros.nodes.bench.driven_node import NAMESPACE, start_node
from scal3r_ros.nodes.output.publishers import CLOUD_SLICES, LATCHED

RATE = 30.0
WIDTH, HEIGHT = 640, 480
SETTINGS = {
    "chunk.size": 20, "chunk.overlap": 10, "map.voxel_size": 0.004, "publish.map_interval": 1.0,
    "publish.map_points": 650000, "publish.depth": "false", "loop.enabled": "false",
}  # fmt: skip
"""Small chunks and voxels, so that the map is large within seconds."""
REAL = ("sfm", "scal3r")
PATIENCE = 30.0
"""Seconds within which the node must be up, and everything sent must have been processed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m scal3r_ros.nodes.bench.latency`."""
    parser.add_argument("--seconds", type=float, default=12.0, help="how long images are sent")
    parser.add_argument("--out", type=Path, default=Path("out/bench/node.json"))
    parser.add_argument(
        "--real-seconds", type=float, default=120.0,
        help="how long images are sent to the installed node with each real reconstructor",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="four seconds, and the stub alone")


def run(args: argparse.Namespace) -> None:
    """Measure once, print, write `--out`."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    seconds = 4.0 if args.quick else args.seconds
    with tempfile.TemporaryFile("w+") as output:
        process = start_node(output, SETTINGS)
        rclpy.init()
        try:
            seen = Camera(rclpy.create_node("camera", namespace=NAMESPACE)).drive(seconds)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
            rclpy.try_shutdown()
        output.seek(0)
        times = json.loads(output.read().splitlines()[-1])
    result: dict[str, Any] = {**seen, **times, "load": os.getloadavg()[0]}
    result["lost"] = result["sent"] - result["received"]
    result["real"] = []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1))
    print(
        f"{result['sent']} images of {WIDTH}x{HEIGHT} at {result['rate_hz']} Hz, "
        f"{result['lost']} lost; "
        f"largest map {result['map_points']} points, load average {result['load']:.1f}\n"
        f"callback [ms], median p99 max: {result['callback_ms']}\n"
        f"stamp to callback [ms]:        {result['delay_ms']}"
    )
    if not args.quick:
        result["real"] = _real_rows(args.real_seconds)
        args.out.write_text(json.dumps(result, indent=1))


def _real_rows(seconds: float) -> list[dict[str, Any]]:
    """The installed node with each real reconstructor; prints a table."""
    print(real_camera.HEADING, flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in REAL:
            found = real_camera.real_run(name, seconds, Path(folder) / f"{name}.log")
            print(found.row, flush=True)
            rows.append(asdict(found))
    return rows


class Camera:
    """Publishes noise and listens to the clouds, as a robot's other nodes would."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._images = node.create_publisher(Image, "image", 10)
        self._info = node.create_publisher(CameraInfo, "camera_info", 10)
        self._sizes = {"map": [0], "cloud": [0]}
        for name, qos in {"map": LATCHED, "cloud": CLOUD_SLICES}.items():
            topic = f"mapping_node/{name}"
            node.create_subscription(PointCloud2, topic, self._note(name), qos, raw=True)

    def drive(self, seconds: float) -> dict[str, float]:
        """Send images at the camera's rate, never faster; what was sent and heard."""
        self._wait_for_node()
        pixels = np.random.default_rng(0).integers(0, 255, WIDTH * HEIGHT * 3, dtype=np.uint8)
        data, count, began = fill(pixels, "B"), round(seconds * RATE), time.monotonic()
        due = began
        for _ in range(count):
            self._spin(due - time.monotonic())
            due = max(due, time.monotonic() - 0.1 / RATE) + 1.0 / RATE
            self._images.publish(
                Image(
                    header=header("camera_optical_frame", time.monotonic_ns()),
                    height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=data,
                )
            )  # fmt: skip
        rate = (count - 1) / (time.monotonic() - began)
        self._spin(3.0)
        return {
            "sent": count,
            "rate_hz": round(rate, 1),
            "map_points": max(self._sizes["map"]) // 20,
        }

    def _wait_for_node(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (self._images.get_subscription_count() and self._info.get_subscription_count()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the node did not start within {PATIENCE:.0f} s")
            self._spin(0.1)
        self._spin(3.0)

    def _note(self, name: str) -> Any:
        return lambda raw: self._sizes[name].append(len(raw))

    def _spin(self, seconds: float) -> None:
        deadline = time.monotonic() + max(seconds, 0.001)
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
