"""Lifecycle and services: every call in every state, and a map that survives a restart."""

import signal
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from map_reading import camera_poses, world_from_map

pytestmark = pytest.mark.ros
CALLS = {
    "reset": {}, "set_paused": {"data": False}, "flush": {}, "save_map": {}, "load_map": {},
    "export": {},
}  # fmt: skip


def test_every_service_in_every_state(start_mapping, make_robot, tmp_path):
    options = {"frames": 60}
    robot = make_robot(options)
    process = start_mapping(options, autostart=False, **{"autosave.path": str(tmp_path / "map")})

    def call_all():
        return {name: robot.call(name, **fields) for name, fields in CALLS.items()}

    robot.until_state("unconfigured")
    for name, answer in call_all().items():
        assert not answer.success and "configure" in answer.message, (name, answer.message)
    assert not robot.change_state("activate"), "not a transition of this state"

    began = time.monotonic()
    assert robot.change_state("configure")
    assert time.monotonic() - began < 2.0, "configure waits for nothing"
    assert not robot.call("load_map", path=str(tmp_path / "nowhere")).success
    answers = call_all()
    assert {name: a.success for name, a in answers.items()} == dict.fromkeys(CALLS, True), answers
    robot.until_status("input", message="not active")

    assert robot.change_state("activate")
    robot.until_active()
    robot.show(range(4))
    assert robot.call("set_paused", data=True).success
    robot.show(range(4, 8))
    assert robot.call("set_paused", data=False).success
    robot.show(range(8, 24))
    answers = call_all()
    assert all(answer.success for answer in answers.values()), answers
    robot.until_status("input", unaccepted="4", received="24")
    assert robot.call("finalize").message.startswith("memory.mode is stream")
    assert not robot.call("save_map", path="/proc/nowhere/map").success

    robot.show(range(24, 40))
    robot.flush()
    assert robot.change_state("deactivate")
    robot.show(range(40, 44))
    answers = call_all()
    assert all(answer.success for answer in answers.values()), answers
    robot.until_status("input", unaccepted="8")
    assert robot.call("reset").success
    empty = robot.until(
        lambda: robot.heard["map"] and robot.heard["map"][-1].width == 0, 60, "an empty map"
    )
    assert empty
    assert robot.change_state("cleanup") and robot.state() == "unconfigured"
    assert robot.change_state("configure") and robot.change_state("activate")
    assert process.stop(signal.SIGTERM) == 0 and "Traceback" not in process.output


def test_finalize_and_a_load_that_fails(start_mapping, make_robot, tmp_path):
    """A failed load loses no frame that waits; the complete memory takes the drift out."""
    options = {"frames": 60, "drift": 0.05, "seconds": 0.5, "slow_from": 1}
    process = start_mapping(options, **{"memory.mode": "finalize"})
    robot = make_robot(options)
    robot.until_active()
    robot.show(range(24))
    answer = robot.call("load_map", path=str(tmp_path / "nowhere"))
    assert not answer.success and "no saved map" in answer.message
    robot.flush()
    robot.until_status("input", processed="24", timeout=30)
    robot.until(lambda: len(camera_poses(robot.heard["trajectory"])) == 24, 60, "24 poses")
    drifted = world_from_map(camera_poses(robot.heard["trajectory"]), robot.city)[3]

    revision = robot.heard["trajectory"][-1].map_revision
    assert robot.call("set_paused", data=True).success
    answer = robot.call("finalize", timeout=60)
    assert answer.success and answer.message.startswith("finalized at revision")
    last = robot.until(
        lambda: (
            robot.heard["trajectory"][-1].map_revision > revision and robot.heard["trajectory"][-1]
        )
    )
    assert last.corrected and len(last.frame_ids) == 24
    assert world_from_map(camera_poses([last]), robot.city)[3] < 0.1 * drifted
    path = robot.heard["path"][-1]
    assert len(path.poses) == 24
    assert process.stop() == 0 and "Traceback" not in process.output


def test_mapping_continues_after_a_restart(start_mapping, make_robot, tmp_path):
    """Ctrl-C saves; the next process loads and goes on in the same frame, without a jump."""
    options, folder = {"frames": 60}, tmp_path / "map"
    settings = {"autosave.path": str(folder), "autosave.on_shutdown": True, "gate.max_gap": 0.0}
    settings["autosave.period"] = 1.0
    process, robot = start_mapping(options, **settings), make_robot(options)
    robot.until_active()
    robot.show(range(26))
    robot.until_status("input", processed="26")
    robot.until(lambda: list(folder.glob("*")), 60, "a periodic save")
    first_poses = camera_poses(robot.heard["trajectory"])
    assert process.stop() == 0
    assert f"saved {folder}" in process.output

    process = start_mapping(options, **settings)
    robot.until(lambda: robot.node.count_publishers("/mapping_node/map") == 1, 60)
    robot.until_active()
    robot.forget()
    answer = robot.call("load_map")
    assert answer.success, answer.message
    assert answer.frames >= 20 and answer.points > 500
    robot.until(lambda: robot.heard["map"], 60, "the loaded map")
    assert robot.heard["map"][-1].width > 500
    robot.show(range(26, 50))
    robot.flush()
    exported = robot.call("export", path=str(tmp_path / "export"))
    assert exported.success, exported.message
    assert any(name.endswith(".ply") for name in exported.files)
    assert any(name.endswith(".txt") for name in exported.files)
    robot.spin(0.3)
    second_poses = camera_poses(robot.heard["trajectory"])
    both = {**first_poses, **second_poses}
    assert len(both) >= 48
    assert world_from_map(both, robot.city)[3] < 0.02, "one frame for both runs"
    path = robot.heard["path"][-1]
    assert len(path.poses) == 50
    assert process.stop() == 0 and "Traceback" not in process.output


def files(folder):
    return {(p.name, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.exists()}


def test_kill_during_a_save_keeps_the_previous_one(start_mapping, make_robot, tmp_path):
    options, folder = {"frames": 60}, tmp_path / "map"
    robot = make_robot(options)
    process = start_mapping(options, **{"autosave.path": str(folder)})
    robot.until_active()
    robot.show(range(20))
    robot.flush()
    assert robot.call("save_map").success
    complete = files(folder)
    robot.show(range(20, 28))
    robot.clients["save_map"].call_async(robot.clients["save_map"].srv_type.Request())
    deadline = time.monotonic() + 60
    while files(folder) == complete and time.monotonic() < deadline:
        robot.executor.spin_once(timeout_sec=0)
    process.process.kill()
    process.process.wait()
    assert files(folder) != complete, "killed after the save had begun"

    robot.until(lambda: robot.node.count_publishers("/mapping_node/map") == 0, 30)
    process = start_mapping(options, **{"autosave.path": str(folder)})
    robot.until_active()
    answer = robot.call("load_map")
    assert answer.success, answer.message
    assert answer.frames in (20, 28) and answer.points > 500
    assert process.stop() == 0


def test_a_service_that_waits_for_a_chunk_is_told_of_every_second(start_mapping, make_robot):
    options = {"frames": 60, "seconds": 4.0, "slow_from": 1}
    process, robot = start_mapping(options), make_robot(options)
    robot.until_active()
    robot.show(range(12))
    robot.until(lambda: int(robot.fresh_status("input")["decoded"]) >= 12, 60, "a chunk in flight")
    client = robot.clients["flush"]
    answer = client.call_async(client.srv_type.Request())

    def told():
        return "flush asked for" in robot.fresh_status("inference")["services in progress"]

    robot.until(told, 3.0, "a word about the flush")
    assert not answer.done(), "the chunk takes longer than that"
    began = time.monotonic()
    assert robot.call("set_paused", data=False).success
    assert time.monotonic() - began < 1.0, "what needs no worker is answered at once"
    robot.until(answer.done, 60, "the flush")
    robot.until_status("inference", **{"services in progress": "none"})
    assert process.stop() == 0 and "Traceback" not in process.output
