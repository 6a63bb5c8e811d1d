"""The node where something is short: one core, few files, little memory; and taken up and down
again and again. Each shortage is told by its name, costs what needed more, and ends nothing."""

import os
import resource
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from std_srvs.srv import Trigger

from scal3r_ros.nodes.bench.driven_node import DrivenNode
from scal3r_ros.nodes.bench.soak import SETTINGS, STUB, Camera
from scal3r_ros.srv import Export, SaveMap

pytestmark = [pytest.mark.ros, pytest.mark.slow]
FRAMES = 60
UP = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
DOWN = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)


def change(driven, number):
    return driven.call(ChangeState, "change_state", transition=Transition(id=number)).success


def ready(driven):
    camera = Camera(driven)
    driven.until(lambda: camera.heard_by > 0, "the camera is heard")
    driven.until(lambda: driven.values("inference").get("state") == "ready", "the stub is up")
    return camera


def test_on_one_core_and_with_no_file_left(ros_domain, tmp_path):
    with DrivenNode(tmp_path / "node.log", SETTINGS, STUB) as driven:
        camera = ready(driven)
        os.sched_setaffinity(driven.process.pid, {min(os.sched_getaffinity(0))})
        camera.show(0, FRAMES)
        limits = resource.prlimit(driven.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(driven.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # no other
        for kind, name in ((SaveMap, "save_map"), (Export, "export")):
            answer = driven.call(kind, name, path=str(tmp_path / name))
            assert not answer.success and "Too many open files" in answer.message
        camera.show(FRAMES, 2 * FRAMES)
        resource.prlimit(driven.process.pid, resource.RLIMIT_NOFILE, limits)
        answer = driven.call(SaveMap, "save_map", path=str(tmp_path / "save_map"))
        assert answer.success, answer.message
        assert (tmp_path / "save_map" / "map_state.npz").is_file()
        assert driven.call(Trigger, "flush").success
        driven.until(lambda: driven.count("input", "processed") == 2 * FRAMES, "all counted")
        assert driven.count("input", "failed callbacks") == driven.count("inference", "failed") == 0
        assert driven.stop() == 0


def test_without_memory_for_a_thread_it_is_told_and_done_when_there_is(ros_domain, tmp_path, capfd):
    with DrivenNode(tmp_path / "node.log", {**SETTINGS, "autostart": "false"}, STUB) as driven:
        camera = Camera(driven)
        driven.until(lambda: driven.messages.get("inference"), "diagnostics")
        pid, limits = driven.process.pid, resource.prlimit(driven.process.pid, resource.RLIMIT_AS)
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        little = pages * resource.getpagesize() + (4 << 20)  # less than the stack of a thread
        resource.prlimit(pid, resource.RLIMIT_AS, (little, limits[1]))
        assert not change(driven, UP[0])
        assert "raise the limits of the process" in capfd.readouterr().err
        resource.prlimit(pid, resource.RLIMIT_AS, limits)
        assert change(driven, UP[0]) and change(driven, UP[1])
        driven.until(lambda: camera.heard_by > 0, "the camera is heard")
        driven.spin(1.0)
        camera.show(0, FRAMES)
        assert driven.stop() == 0


def test_up_and_down_again_and_again_leaves_nothing_behind(ros_domain, tmp_path):
    with DrivenNode(tmp_path / "node.log", {**SETTINGS, "autostart": "false"}, STUB) as driven:
        camera, figures = Camera(driven), []
        for cycle in range(8):
            for number in (*UP, *DOWN):
                assert change(driven, number)
                if number == UP[-1] and cycle in (1, 7):
                    driven.until(lambda: camera.heard_by > 0, "the camera is heard")
                    driven.spin(1.0)
                    camera.show(0, FRAMES)
            figures.append(driven.figures())
        # After the same work six cycles earlier: one file or thread left by each would be six more.
        # A busy machine closes sockets a moment after the transition has ended.
        before = figures[1]

        def settled():
            now = driven.figures()
            return now.files <= before.files + 4 and now.threads <= before.threads + 4

        driven.until(settled, "what was opened is closed again")
        after = driven.figures()
        assert after.megabytes < before.megabytes + 20.0
        assert driven.stop() == 0
