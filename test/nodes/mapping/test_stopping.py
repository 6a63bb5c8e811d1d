"""Ctrl-C and SIGTERM in every lifecycle state: exit code 0 within five seconds, no traceback."""

import signal
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from mapping_process import SMALL_CHUNKS
from oracle_node import DEFAULTS, StampOracle

from scal3r_ros.config import Config
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline.mapper import Mapper

pytestmark = pytest.mark.ros
SLOW = {"frames": 60, "seconds": 30.0, "slow_from": 1}


def check_stopped(robot, process, number):
    started = time.monotonic()
    code = process.stop(number, timeout=5.0)
    assert code == 0, process.output
    assert time.monotonic() - started < 5.0
    assert "Traceback" not in process.output
    robot.until(
        lambda: "mapping_node" not in robot.node.get_node_names(), 10, "the node has said goodbye"
    )


BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])


@BOTH
def test_unconfigured_and_inactive(start_mapping, make_robot, number):
    robot = make_robot()
    process = start_mapping(autostart=False)
    robot.until_state("unconfigured")
    check_stopped(robot, process, number)
    process = start_mapping(autostart=False)
    robot.until_state("unconfigured")
    assert robot.change_state("configure")
    assert robot.state() == "inactive"
    check_stopped(robot, process, number)


@BOTH
def test_finalized_and_loading(start_mapping, make_robot, number):
    robot = make_robot()
    process = start_mapping(autostart=False)
    robot.until_state("unconfigured")
    assert robot.change_state("unconfigured_shutdown")
    assert robot.state() == "finalized"
    check_stopped(robot, process, number)
    process = start_mapping({"load_seconds": 60.0})
    robot.until_state("active")
    robot.until_status("inference", level=1)
    check_stopped(robot, process, number)


@BOTH
def test_active_while_a_chunk_is_computed(start_mapping, make_robot, number, tmp_path):
    """The chunk in flight is given up; what was mapped is saved, and so are the chunk's frames."""
    robot = make_robot(SLOW)
    saves = {"autosave.path": str(tmp_path / "map"), "autosave.on_shutdown": True}
    process = start_mapping(SLOW, **saves)
    robot.until_active()
    robot.show(range(16))
    robot.until_status("input", received="16", decoded="12")
    check_stopped(robot, process, number)
    told = "4 images of an unfinished chunk are saved and go on after loading, 4 that waited are"
    assert "saved" in process.output and told in process.output
    mapper = Mapper(from_dict(Config, SMALL_CHUNKS), StampOracle({**DEFAULTS, "frames": 60}))
    mapper.load(tmp_path / "map")
    assert [pose.frame_id for pose in mapper.trajectory()] == list(range(8))
    mapper.flush()
    assert [pose.frame_id for pose in mapper.trajectory()] == list(range(12))


def test_transitions_do_not_wait_for_a_chunk_in_flight(start_mapping, make_robot):
    robot = make_robot(SLOW)
    process = start_mapping(SLOW, **{"worker.stop_timeout": 3.0})
    robot.until_active()
    robot.show(range(16))
    robot.until(lambda: int(robot.fresh_status("input")["decoded"]) >= 12, 60, "a chunk in flight")
    for name, limit in {
        "deactivate": 1.0,
        "cleanup": 5.0,
        "configure": 1.0,
        "activate": 1.0,
    }.items():
        began = time.monotonic()
        assert robot.change_state(name), name
        took = time.monotonic() - began
        assert took < limit, name
        assert took >= 3.0 or name != "cleanup", "the chunk had the time that it is given"
    assert not robot.call("load_map", path="/nowhere").success, "the new worker answers"
    check_stopped(robot, process, signal.SIGTERM)
