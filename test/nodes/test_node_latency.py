"""The camera is heard at full rate while the network runs and large clouds are published."""

import json
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from mapping_process import LATCHED
from sensor_msgs.msg import Image, PointCloud2

from scal3r_ros.nodes.conversions import fill, header

pytestmark = [pytest.mark.ros, pytest.mark.slow]
RATE, SECONDS = 30.0, 12.0


def test_no_frame_is_lost_while_large_clouds_are_published(start_mapping, make_robot):
    process = start_mapping(
        {"constant": True, "seconds": 0.2},
        **{
            "chunk.size": 20, "chunk.overlap": 10, "map.voxel_size": 0.004,
            "publish.map_interval": 1.0, "publish.map_points": 650000, "publish.depth": False,
            "qos.image.depth": 30,
        },
    )  # fmt: skip
    robot = make_robot(listen=False, camera_qos=30)
    sizes = []
    for topic, qos in (("map", LATCHED), ("cloud", 200)):
        robot.node.create_subscription(
            PointCloud2, f"/mapping_node/{topic}", lambda raw: sizes.append(len(raw)), qos, raw=True
        )
    robot.until_active()
    pixels = fill(np.random.default_rng(0).integers(0, 255, 640 * 480 * 3, dtype=np.uint8), "B")
    sent, began = 0, time.monotonic()
    while (now := time.monotonic()) < began + SECONDS:
        robot.image.publish(
            Image(
                header=header("camera_optical_frame", time.monotonic_ns()),
                height=480, width=640, encoding="rgb8", step=1920, data=pixels,
            )
        )  # fmt: skip
        sent += 1
        robot.spin(max(0.001, began + sent / RATE - now))
    robot.spin(1.0)
    robot.listen_to_diagnostics()
    counts = robot.until_status("input", received=str(sent))
    points = int(robot.fresh_status("map")["points"])
    assert process.stop() == 0
    line = next(line for line in process.output.splitlines() if line.startswith("TIMES"))
    times = json.loads(line.removeprefix("TIMES"))
    print(
        f"{sent} frames sent, {counts['received']} received, map {points} points, largest "
        f"message {max(sizes)} bytes, seconds [p50, p99, max] {times}"
    )
    assert int(counts["received"]) == sent
    assert points > 500_000 and max(sizes) > 10_000_000
    assert times["callback"][1] < 0.010
