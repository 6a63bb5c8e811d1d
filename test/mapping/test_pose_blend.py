"""Blending: equal poses stay, weights decide, and frames in several chunks have no step."""

import numpy as np
from test_trajectory import SPREAD

from scal3r_ros.mapping.pose_blend import blended, place_weight
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.trajectory import Trajectory


def test_equal_poses_are_their_own_mean():
    random = np.random.default_rng(0)
    poses = Sim3.exp(np.c_[random.standard_normal((50, 6)), np.zeros(50)]).matrix()
    weights = random.uniform(0.1, 1, (50, 3))
    thrice = np.repeat(poses[:, None], 3, axis=1)
    np.testing.assert_allclose(blended(thrice, weights), poses, atol=1e-12)


def test_a_pose_of_no_weight_does_not_count_and_equal_weights_meet_in_the_middle():
    ends = Sim3.exp(np.array([[[0, 0, 0, 0, 0, 0, 0], [2.0, 0, 0, 0, 0, 0.2, 0]]])).matrix()
    np.testing.assert_allclose(blended(ends, np.array([[1.0, 0.0]])), ends[:, 0], atol=1e-12)
    middle = blended(ends, np.array([[1.0, 1.0]]))[0]
    np.testing.assert_allclose(middle[:3, 3], ends[0, :, :3, 3].mean(axis=0))
    angle = np.arctan2(middle[1, 0], middle[0, 0])
    np.testing.assert_allclose(angle, 0.1, atol=1e-12)


def test_the_middle_of_a_chunk_is_believed_most():
    weights = [place_weight(i, 61) for i in range(61)]
    assert max(weights) == weights[30] == 1.0 and weights[0] == weights[-1] == 0.25
    assert place_weight(0, 1) == 1.0


def test_a_frame_in_three_chunks_moves_with_all_of_them_and_is_saved_so():
    trajectory = Trajectory()
    nodes = {k: Sim3.exp(np.r_[float(k), 0, 0, 0, 0, 0, 0]) for k in range(4)}
    trajectory.put(7, 70, 2, np.eye(4), 1.0, False, SPREAD)
    for chunk, weight in ((0, 9.0), (1, 1.0), (2, 2.0), (3, 1.0)):
        trajectory.see(7, chunk, np.eye(4), weight)  # the oldest one is forgotten
    restored = Trajectory.restore(trajectory.state())
    for found in (trajectory, restored):
        np.testing.assert_allclose(found.matrices(nodes)[0, :3, 3], [2.0, 0, 0], atol=1e-12)
        (pose,) = found.poses(nodes)
        np.testing.assert_array_equal(pose.T_map_camera, found.matrices(nodes)[0])


def test_what_was_told_first_is_kept():
    trajectory = Trajectory()
    nodes = {0: Sim3.identity()}
    trajectory.put(1, 10, 0, np.eye(4), 1.0, True, SPREAD)
    assert trajectory.told() == {}
    trajectory.tell(trajectory.poses(nodes))
    nodes = {0: Sim3.exp(np.r_[5.0, 0, 0, 0, 0, 0, 0])}
    trajectory.tell(trajectory.poses(nodes))
    rebuilt = Trajectory()
    rebuilt.put(1, 10, 0, np.eye(4), 1.0, True, SPREAD)
    rebuilt.take_told(Trajectory.restore(trajectory.state()))
    for found in (trajectory, rebuilt):
        np.testing.assert_array_equal(found.told()[1], np.eye(4))
