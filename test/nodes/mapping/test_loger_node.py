"""The real node with LoGeR: poses of all frames, a save, a refusal at configure."""

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
pytest.importorskip("torch")
from loger_chain import save_loger
from map_reading import camera_poses
from small_loger import SMALL

pytestmark = pytest.mark.ros
OPTIONS = {"frames": 40, "configured": True}


def test_windows_become_poses_live(start_mapping, make_robot, tmp_path):
    checkpoint = save_loger(tmp_path, SMALL)
    network = {"model.reconstructor": "loger", "model.checkpoint": checkpoint}
    windows = {"chunk.size": 6, "chunk.overlap": 2, "memory.reset_every": 2, "model.device": "cpu"}
    process, robot = start_mapping(OPTIONS, **network, **windows), make_robot(OPTIONS)
    robot.until_active()
    robot.show(range(14))
    heard = robot.heard
    robot.until(lambda: len(camera_poses(heard["trajectory"])) >= 14, 60, "14 poses")
    saved = robot.call("save_map", path=str(tmp_path / "map"))
    assert saved.success, saved.message
    assert process.stop() == 0 and "Traceback" not in process.output


def test_without_weights_the_node_says_what_is_missing(start_mapping, make_robot):
    process, robot = start_mapping(OPTIONS, **{"model.reconstructor": "loger-star"}), make_robot()
    robot.until(lambda: "loger-star needs weights" in process.output, 60, "the refusal")
