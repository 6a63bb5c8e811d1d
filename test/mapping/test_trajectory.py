"""Poses live in chunk coordinates: corrections move them, covariances follow."""

import numpy as np
import pytest

from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.trajectory import Trajectory, pose_covariance

SPREAD = np.diag([0.04, 0.01, 0.02, 1e-4, 2e-4, 3e-4])


def filled(frames: int = 600) -> tuple[Trajectory, dict[int, Sim3], np.ndarray]:
    random = np.random.default_rng(0)
    nodes = {k: Sim3.exp(0.5 * random.standard_normal(7)) for k in range(20)}
    poses = Sim3.exp(np.c_[random.standard_normal((frames, 6)), np.zeros(frames)]).matrix()
    trajectory = Trajectory()
    for i in reversed(range(frames)):
        trajectory.put(i, 1000 * i, i % 20, poses[i], 2.0, i > 590, SPREAD)
    return trajectory, nodes, poses


def test_poses_come_in_order_and_where_their_chunk_is():
    trajectory, nodes, poses = filled()
    found = trajectory.poses(nodes)
    assert [p.frame_id for p in found] == list(range(600))
    for pose in found[::37]:
        expected = nodes[pose.chunk_index].move_pose(poses[pose.frame_id])
        np.testing.assert_allclose(pose.T_map_camera, expected, atol=1e-12)
        assert pose.stamp_ns == 1000 * pose.frame_id
        assert pose.provisional == (pose.frame_id > 590)


def test_a_correction_needs_no_update():
    trajectory, nodes, _ = filled()
    correction = Sim3.exp(np.r_[1.0, 2, 3, 0.1, 0.2, 0.3, 0.2])
    before = trajectory.matrices(nodes)
    after = trajectory.matrices({k: correction @ S for k, S in nodes.items()})
    np.testing.assert_allclose(after, correction.move_pose(before), atol=1e-10)


def test_a_provisional_pose_is_replaced_or_confirmed():
    trajectory, nodes, poses = filled(10)
    trajectory.put(9, 9000, 3, poses[0], 5.0, True, SPREAD)
    assert len(trajectory) == 10
    assert trajectory.chunk_of(9) == 3
    assert trajectory.poses(nodes, [9])[0].provisional
    trajectory.confirm([9])
    confirmed = trajectory.poses(nodes, [9])[0]
    assert not confirmed.provisional
    assert confirmed.confidence == 5.0
    np.testing.assert_allclose(confirmed.T_map_camera, nodes[3].move_pose(poses[0]), atol=1e-12)


def test_pose_covariance_against_sampling():
    random = np.random.default_rng(1)
    S = Sim3.exp(np.r_[1.0, 2, 3, 0.4, -0.2, 0.3, 0.5])
    position = np.array([2.0, -1.0, 4.0])
    of_chunk = np.diag(np.r_[1e-3, 2e-3, 3e-3, 1e-4, 2e-4, 1e-4, 4e-4])
    shaken = S @ Sim3.exp(random.multivariate_normal(np.zeros(7), of_chunk, 40000))
    inside = random.multivariate_normal(position, SPREAD[:3, :3], 40000)
    points = np.asarray(shaken.scale)[:, None] * (shaken.rotation @ inside[..., None])[..., 0]
    sampled = np.cov((points + shaken.translation).T)
    stated = pose_covariance(SPREAD, S, position, of_chunk)
    np.testing.assert_allclose(stated[:3, :3], sampled, rtol=0.1, atol=0.02 * np.trace(sampled))
    assert np.linalg.eigvalsh(stated).min() > 0


def test_frames_are_chosen_by_chunk_and_evenly():
    trajectory, _, _ = filled()
    assert trajectory.spread(4) == (0, 200, 399, 599)
    assert trajectory.spread(1) == (599,) and len(trajectory.spread(1000)) == 600
    everything = [i for chunk in trajectory.chunks for i in trajectory.of_chunks([chunk])]
    assert sorted(everything) == list(trajectory.frame_ids)
    assert all(trajectory.chunk_of(i) == 3 for i in trajectory.of_chunks([3]))
    assert trajectory.of_chunks([]) == ()


def test_saved_trajectory_goes_on():
    trajectory, nodes, poses = filled()
    twin = Trajectory.restore(trajectory.state())
    twin.put(600, 600_000, 0, poses[0], 1.0, False, SPREAD)
    assert len(twin) == 601
    assert 599 in twin
    assert 601 not in twin
    np.testing.assert_array_equal(twin.matrices(nodes, range(600)), trajectory.matrices(nodes))
    assert Trajectory().poses(nodes) == Trajectory().spread(9) == ()
    with pytest.raises(KeyError):
        trajectory.chunk_of(9999)
