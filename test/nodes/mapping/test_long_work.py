"""Long work as actions: feedback, cancel, and services that do not keep anybody waiting."""

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient

from scal3r_ros.action import Export, Finalize, MergeMaps, SaveMap

pytestmark = pytest.mark.ros


def send(robot, kind, name, heard, **fields):
    """A goal that was accepted."""
    client = ActionClient(robot.node, kind, f"/mapping_node/{name}")
    robot.until(client.server_is_ready, 60, f"the action {name}")
    sent = client.send_goal_async(
        kind.Goal(**fields), feedback_callback=lambda message: heard.append(message.feedback)
    )
    robot.until(sent.done, 60, "an answer to the goal")
    assert sent.result().accepted
    return sent.result()


def outcome(robot, goal):
    result = goal.get_result_async()
    robot.until(result.done, 90, "the result")
    return result.result().status, result.result().result


def test_finalize_tells_how_far_it_is_and_can_be_cancelled(start_mapping, make_robot, tmp_path):
    options = {"frames": 60, "drift": 0.05, "finalize_seconds": 1.5}
    process = start_mapping(options, **{"memory.mode": "finalize"})
    robot = make_robot(options)
    robot.until_active()
    robot.show(range(24))
    robot.flush()
    revision = robot.heard["trajectory"][-1].map_revision

    heard = []
    goal = send(robot, Finalize, "finalize", heard)
    robot.until(lambda: any(0 < item.share < 1 for item in heard), 60, "feedback")
    robot.until(goal.cancel_goal_async().done, 60, "an answer to the cancel")
    status, result = outcome(robot, goal)
    assert status == GoalStatus.STATUS_CANCELED and "cancelled" in result.message
    assert not any(message.corrected for message in robot.heard["trajectory"])

    began = time.monotonic()
    answer = robot.call_once("finalize", timeout=60)
    assert not answer.success and "still running" in answer.message
    assert 4.0 < time.monotonic() - began < 30.0
    status, result = outcome(robot, send(robot, Finalize, "finalize", heard))
    assert status == GoalStatus.STATUS_SUCCEEDED and result.success, result.message
    assert result.map_revision > revision
    assert max(item.share for item in heard) > 0.5 and any("chunk" in item.stage for item in heard)

    status, result = outcome(
        robot, send(robot, SaveMap, "save_map", [], path=str(tmp_path / "map"))
    )
    assert status == GoalStatus.STATUS_SUCCEEDED and (tmp_path / "map" / "map_state.npz").is_file()
    status, result = outcome(robot, send(robot, Export, "export", [], path=str(tmp_path / "out")))
    assert status == GoalStatus.STATUS_SUCCEEDED and any(f.endswith(".ply") for f in result.files)
    goal = send(robot, MergeMaps, "merge_maps", [], maps=[str(tmp_path / "map")], out="/tmp/x")
    status, result = outcome(robot, goal)
    assert status == GoalStatus.STATUS_ABORTED and "two maps or more" in result.message
    assert process.stop() == 0 and "Traceback" not in process.output
