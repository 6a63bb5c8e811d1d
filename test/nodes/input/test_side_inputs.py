"""Sensors beside the camera are subscribed to as their options say."""

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from rclpy.qos import ReliabilityPolicy

from scal3r_ros.nodes.base.node_config import NodeConfig, TfConfig
from scal3r_ros.nodes.input.side_inputs import SideInputs
from scal3r_ros.nodes.output.transforms import Transforms
from scal3r_ros.options import from_dict

pytestmark = pytest.mark.ros
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


def subscribed(node, **options):
    """Reliability and depth by topic."""
    config = from_dict(NodeConfig, options)
    before = set(node.subscriptions)
    inputs = SideInputs(node, config, Transforms(node, TfConfig(mode="none")), None, lambda: "")
    found = {
        item.topic_name: (item.qos_profile.reliability, item.qos_profile.depth)
        for item in set(node.subscriptions) - before
        if not item.topic_name.startswith("/tf")
    }
    inputs.destroy()
    return found


def test_nothing_is_subscribed_to_that_nobody_wants(node):
    assert subscribed(node) == {}


def test_every_input_has_a_quality_of_service_of_its_own(node):
    wanted = {"scale.source": "depth", "input.odometry": True, "map.alignment": "imu"}
    wanted["scale.also"] = "gnss"
    qos = {
        "qos.odometry.reliability": "reliable", "qos.odometry.depth": 7,
        "qos.imu.reliability": "best_effort", "qos.imu.depth": 3,
        "qos.depth_image.reliability": "reliable", "qos.depth_image.depth": 2,
        "qos.gnss.reliability": "best_effort", "qos.gnss.depth": 4,
    }  # fmt: skip
    assert subscribed(node, **wanted, **qos) == {
        "/odom": (RELIABLE, 7),
        "/imu": (BEST_EFFORT, 3),
        "/depth": (RELIABLE, 2),
        "/fix": (BEST_EFFORT, 4),
    }
