"""What a planner hears: a latched grid in standard colours, obstacles at a steady rate; and the
confidence beside the depth."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from mapping_process import LATCHED
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import PointCloud2

from scal3r_ros.bench.city import CAMERA_HEIGHT

pytestmark = pytest.mark.ros
STREET = {"frames": 40, "length": 20.0}
WANTED = {
    "grid.enabled": True, "grid.max_range": 12.0, "grid.resolution": 0.2, "map.alignment": "floor",
    "publish.obstacles_rate": 12.0, "scale.source": "camera_height",
    "scale.camera_height": CAMERA_HEIGHT,
}  # fmt: skip


def test_grid_obstacles_and_confidence_over_dds(start_mapping, make_robot, tmp_path):
    start_mapping(STREET, **WANTED)
    robot = make_robot(STREET)
    robot.listen(PointCloud2, "/mapping_node/obstacles", 10, "obstacles")
    robot.until_active()
    robot.show(range(40))
    robot.flush()
    robot.listen(OccupancyGrid, "/mapping_node/grid", LATCHED, "grid")  # late, and still heard
    robot.until(lambda: robot.heard["grid"] and robot.heard["obstacles"], what="grid, obstacles")
    grid = robot.heard["grid"][-1]
    cells = np.array(grid.data).reshape(grid.info.height, grid.info.width)
    assert grid.header.frame_id == "map" and grid.info.resolution == pytest.approx(0.2)
    assert cells.min() == -1 and cells.max() <= 100
    row, column = (
        int(-x / 0.2) for x in (grid.info.origin.position.y, grid.info.origin.position.x)
    )
    ahead = cells[row - 5 : row + 5, column + 20 : column + 60]
    assert (ahead[ahead >= 0] <= 25).mean() > 0.95 and (ahead >= 0).mean() > 0.8
    assert (cells >= 65).sum() > 50  # the houses on both sides

    robot.forget()
    started = time.monotonic()
    robot.spin(2.0)
    rate = len(robot.heard["obstacles"]) / (time.monotonic() - started)
    assert rate >= 6.0, rate
    assert robot.status("grid")["level"] == 0

    out = tmp_path / "out"
    exported = robot.call("export", path=str(out), formats=["grid", "pcd"])
    assert exported.success, exported.message
    assert sorted(path.name for path in out.iterdir()) == ["grid.pgm", "grid.yaml", "map.pcd"]
    refused = robot.call("export", path=str(out), formats=["stl"])
    assert not refused.success and "choose from" in refused.message


def test_confidence_goes_with_depth_and_the_sky_has_none(start_mapping, make_robot):
    """Also that a grid is refused with the reason while metres are unknown."""
    start_mapping(STREET, **{"grid.enabled": True})
    robot = make_robot(STREET)
    robot.until_active()
    robot.show(range(16))
    robot.flush()
    depth = {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in robot.heard["depth"]}
    sure = {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in robot.heard["confidence"]}
    assert depth and depth.keys() == sure.keys()
    for stamp, message in depth.items():
        both = [np.frombuffer(m.data, np.float32) for m in (message, sure[stamp])]
        assert (message.height, message.width) == (sure[stamp].height, sure[stamp].width)
        sky = np.isnan(both[0])
        assert 0.05 < sky.mean() < 0.9
        assert (both[1][sky] == 0).all() and (both[1][~sky] > 0).all()
    status = robot.until_status("grid", message="not in metres")
    assert "scale.source" in status["message"] and "map.alignment" in status["message"]
