"""Some parameters change what a running node does; the others are refused with what to do."""

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

pytestmark = pytest.mark.ros


def test_gate_and_queue_follow_at_once(start_mapping, make_robot):
    process, robot = start_mapping({"frames": 60}), make_robot({"frames": 60})
    robot.clients["set"] = robot.node.create_client(SetParameters, "/mapping_node/set_parameters")
    robot.until_active()

    def change(name: str, value) -> tuple[bool, str]:
        message = Parameter(name, value=value).to_parameter_msg()
        result = robot.call("set", parameters=[message]).results[0]
        return result.successful, result.reason

    robot.show(range(10))
    robot.until_status("input", received="10")
    assert change("gate.stride", 3) == (True, "")
    assert change("queue.max_frames", 5) == (True, "")
    assert change("loop.threshold", 0.7) == (True, "")
    assert change("loop.threshold", 1.5)[0] is False
    robot.show(range(10, 28))
    robot.flush()
    status = robot.until_status("input", received="28")
    assert int(status["gated"]) == 12, "two of three"
    done, reason = change("chunk.size", 12)
    assert not done and "can only change while unconfigured" in reason
    done, reason = change("gate.min_parallax", 0.1)
    assert not done and "can only change while unconfigured" in reason
    done, reason = change("gate.stride", 0)
    assert not done
    assert process.stop() == 0 and "Traceback" not in process.output
