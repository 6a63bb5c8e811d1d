"""The mapping node as its users meet it: real processes, real DDS, a network that knows the truth."""


import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from scipy.spatial.transform import Rotation

pytestmark = pytest.mark.ros


def camera_poses(trajectory_messages):
    """Newest pose of every frame: stamp to (4, 4)."""
    poses = {}
    for message in trajectory_messages:
        positions = np.array(message.positions).reshape(-1, 3)
        turns = Rotation.from_quat(np.array(message.orientations).reshape(-1, 4)).as_matrix()
        for stamp, position, turn in zip(message.stamps_ns, positions, turns):
            T = np.eye(4)
            T[:3, :3], T[:3, 3] = turn, position
            poses[stamp] = T
    return poses


def aligned_error(poses, city):
    """Largest distance to the truth after the best similarity, metres; and the scale."""
    stamps = sorted(poses)
    known = {city.stamp_ns(i): city.T_world_camera[i] for i in range(len(city))}
    found = np.array([poses[s][:3, 3] for s in stamps])
    truth = np.array([known[s][:3, 3] for s in stamps])
    a, b = found - found.mean(0), truth - truth.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (d * np.diag(sign)).sum() / (a**2).sum()
    return np.abs(b - scale * a @ (u @ sign @ vt).T).max(), scale


def test_outputs(start_mapping, make_robot):
    options = {"frames": 60}
    process, robot = start_mapping(options), make_robot(options)
    robot.until_active()
    robot.show(range(30))
    robot.flush()
    robot.until(lambda: len(camera_poses(robot.heard["trajectory"])) == 30, 10, "30 poses")
    error, _ = aligned_error(camera_poses(robot.heard["trajectory"]), robot.city)
    assert error < 0.02
    assert process.stop() == 0
    assert "Traceback" not in process.output
