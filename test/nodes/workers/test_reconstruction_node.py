"""`reconstruction_node` in this process: how long it lets a computation in flight go on."""

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
pytest.importorskip("torch", reason="torch is absent; run the tests with `make test`")
from rclpy.parameter import Parameter

from scal3r_ros.nodes.reconstruction_node import ReconstructionNode

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(("limit", "left"), [(0.0, ["a round in flight"]), (60.0, [])])
def test_stopping_waits_for_what_is_in_flight_but_not_longer_than_told(ros, limit, left):
    """It is stopped while its network is being loaded."""
    options = {"autostart": False, "stop_timeout": limit, "model.device": "cpu"}
    parameters = [Parameter(name, value=value) for name, value in options.items()]
    node = ReconstructionNode(parameter_overrides=parameters)
    node.configure()
    loop = node.loop
    try:
        node.cleanup()
        assert node.left_behind == left
    finally:
        deadline = time.monotonic() + 60.0
        while not loop.stop(1.0):
            assert time.monotonic() < deadline
        node.destroy_node()
