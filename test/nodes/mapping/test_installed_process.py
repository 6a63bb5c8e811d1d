"""The network in a process of its own, started by the installed executable as `ros2 run` does."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
pytest.importorskip("pycolmap", reason="pycolmap is absent")
from ament_index_python.packages import get_package_prefix

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def children(pid: int) -> list[int]:
    """Processes that `pid` has started and that are still there, their helpers left out."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(word) for file in listed for word in file.read_text().split()]
    lines = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child, line in lines.items() if b"resource_tracker" not in line]


@pytest.fixture
def executable(tmp_path, ros_domain):
    path = Path(get_package_prefix("scal3r_ros"), "lib", "scal3r_ros", "mapping_node")
    started = []

    def start(**parameters):
        words = [w for n, v in parameters.items() for w in ("-p", f"{n}:={v}")]
        log = (tmp_path / "node.log").open("wb")
        command = [str(path), "--ros-args", *words]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("to_all", [False, True], ids=["node", "group"])
def test_sfm_runs_beside_the_node_and_ends_with_it(executable, make_robot, tmp_path, to_all):
    """By default; SIGTERM to the node alone, and to everything that it has started."""
    robot = make_robot()
    process = executable(**{"model.reconstructor": "sfm"})
    robot.until_status("inference", state="ready")
    (child,) = children(process.pid)
    assert robot.node.get_node_names().count("mapping_node") == 1
    began = time.monotonic()
    if to_all:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    assert process.wait(20.0) == 0
    assert time.monotonic() - began < 5.0
    log = (tmp_path / "node.log").read_text()
    assert not any(word in log for word in ("Traceback", "bort", "terminate", "*** ")), log
    assert not Path(f"/proc/{child}").exists()


def test_a_dead_network_is_replaced_and_a_dead_node_leaves_none(executable, make_robot, tmp_path):
    robot = make_robot()
    process = executable(**{"model.reconstructor": "sfm", "worker.mode": "process"})
    robot.until_status("inference", state="ready")
    (dead,) = children(process.pid)
    os.kill(dead, signal.SIGKILL)
    assert robot.call("save_map", path=str(tmp_path / "map")).success
    assert (tmp_path / "map" / "map_state.npz").is_file()
    assert robot.call("reset").success
    (child,) = children(process.pid)
    assert child != dead
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20.0
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
