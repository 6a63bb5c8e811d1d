"""The camera is heard while the worker is busy and large clouds are published.

How fast is measured by `scal3r bench node`; here is what holds on any machine.
"""

import argparse
import json

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from mapping_process import LATCHED
from sensor_msgs.msg import Image, PointCloud2

from scal3r_ros.nodes.base.conversions import fill, header
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.bench import latency as bench

pytestmark = [pytest.mark.ros, pytest.mark.slow]
FRAMES, RATE, DEPTH = 150, 30, NodeConfig().qos.image.depth


def test_no_frame_is_lost_while_large_clouds_are_published(start_mapping, make_robot):
    """At most as many images are under way as the node asks the middleware to hold."""
    process = start_mapping(
        {"constant": True},
        **{
            "chunk.size": 20, "chunk.overlap": 10, "map.voxel_size": 0.004,
            "publish.map_interval": 0.5, "publish.map_points": 650000, "publish.depth": False,
        },
    )  # fmt: skip
    robot = make_robot()
    sizes = []
    robot.node.create_subscription(
        PointCloud2, "/mapping_node/map", lambda raw: sizes.append(len(raw)), LATCHED, raw=True
    )
    robot.until_active()
    stamps = [(i + RATE) * 10**9 // RATE for i in range(FRAMES)]
    pixels = fill(np.random.default_rng(0).integers(0, 255, 640 * 480 * 3, dtype=np.uint8), "B")

    def under_way(index):
        mapped = [stamp for message in robot.heard["trajectory"] for stamp in message.stamps_ns]
        return index - (stamps.index(max(mapped)) + 1 if mapped else 0)

    for index, stamp in enumerate(stamps):
        robot.image.publish(
            Image(
                header=header("camera_optical_frame", stamp),
                height=480, width=640, encoding="rgb8", step=1920, data=pixels,
            )
        )  # fmt: skip
        robot.spin(1.0 / RATE)
        robot.until(lambda sent=index + 1: under_way(sent) < DEPTH, 120, "mapped images")
    robot.until_status("input", received=str(FRAMES), dropped="0")
    robot.until(lambda: max(sizes) > 10_000_000, 60, "a map of 500,000 points")
    assert process.stop() == 0
    line = next(line for line in process.output.splitlines() if line.startswith("WATCH"))
    counts = json.loads(line.removeprefix("WATCH"))
    assert counts["callbacks"] == FRAMES
    assert counts["while_busy"] > FRAMES // 4, "callbacks wait for the worker"


def test_the_benchmark_counts_every_image(ros_domain, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    bench.run(parser.parse_args(["--quick", "--out", str(tmp_path / "node.json")]))
    result = json.loads((tmp_path / "node.json").read_text())
    assert result["sent"] == 120 and result["received"] + result["lost"] == 120
    assert result["received"] > 0 and result["map_points"] > 0
    assert 0 < result["callback_ms"][0] <= result["callback_ms"][1] <= result["callback_ms"][2]
    assert "lost" in capsys.readouterr().out
