"""Rigid motions: laws of the group, and agreement with scipy's rotations."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from scal3r_ros import rigid

SECOND = 1_000_000_000


def poses(count, seed=0, spread=10.0):
    random = np.random.default_rng(seed)
    turns = Rotation.random(count, random_state=seed).as_matrix()
    return rigid.from_parts(turns, spread * random.standard_normal((count, 3)))


def test_the_inverse_undoes_one_pose_or_many():
    T = poses(50)
    np.testing.assert_allclose(rigid.inverse(T) @ T, np.broadcast_to(np.eye(4), T.shape), atol=1e-9)
    np.testing.assert_array_equal(rigid.inverse(T)[7], rigid.inverse(T[7]))


def test_quaternions_agree_with_scipy_also_at_half_turns():
    axes = np.concatenate([np.eye(3), -np.eye(3), Rotation.random(30, 1).as_rotvec()])
    angles = np.concatenate([np.full(6, np.pi), np.linspace(1e-9, np.pi, 30)])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    turns = Rotation.from_rotvec(axes * angles[:, None])
    found, expected = rigid.quaternion(turns.as_matrix()), turns.as_quat()
    assert (found[:, 3] >= 0).all()
    np.testing.assert_allclose(np.abs((found * expected).sum(axis=1)), 1.0, atol=1e-12)
    np.testing.assert_allclose(rigid.rotation_matrix(found), turns.as_matrix(), atol=1e-12)
    np.testing.assert_array_equal(rigid.quaternion(turns.as_matrix()[4]), found[4])
    np.testing.assert_allclose(rigid.rotation_matrix(3.0 * found[9]), turns[9].as_matrix())


def test_rounding_errors_of_a_rotation_are_removed_and_nothing_else():
    random = np.random.default_rng(4)
    T = rigid.from_parts(Rotation.random(5, random_state=0).as_matrix(), random.normal(size=(5, 3)))
    np.testing.assert_allclose(rigid.orthonormal(T), T, atol=1e-12)
    spoilt = T + 1e-3 * np.pad(random.normal(size=(5, 3, 3)), ((0, 0), (0, 1), (0, 1)))
    R = rigid.orthonormal(spoilt)[:, :3, :3]
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.tile(np.eye(3), (5, 1, 1)), atol=1e-12)
    assert np.abs(R - T[:, :3, :3]).max() < 5e-3


def test_a_quaternion_of_length_zero_is_refused():
    with pytest.raises(ValueError, match="must not be zero"):
        rigid.rotation_matrix(np.zeros(4))


def test_interpolation_is_scipys_along_a_straight_line():
    for before, after in zip(poses(40, 1), poses(40, 2)):
        middle = rigid.interpolate(before, after, 0.3)
        turns = Rotation.from_matrix(np.stack([before[:3, :3], after[:3, :3]]))
        np.testing.assert_allclose(
            middle[:3, :3], Slerp([0.0, 1.0], turns)(0.3).as_matrix(), atol=1e-9
        )
        np.testing.assert_allclose(middle[:3, 3], 0.7 * before[:3, 3] + 0.3 * after[:3, 3])
    np.testing.assert_allclose(rigid.interpolate(before, before, 0.5), before, atol=1e-12)


def test_a_carried_covariance_is_that_of_simulated_poses():
    """The rotation's error moves the far point; carried there and back nothing has changed."""
    random = np.random.default_rng(3)
    root = 0.01 * random.standard_normal((6, 6))
    covariance, lever = root @ root.T, np.array([0.4, -0.2, 1.3])
    errors = random.standard_normal((200_000, 6)) @ root.T
    far = Rotation.from_rotvec(errors[:, 3:]).apply(lever) - lever + errors[:, :3]
    simulated = np.cov(np.hstack([far, errors[:, 3:]]).T)
    found = rigid.carried(covariance, lever)
    np.testing.assert_allclose(found, simulated, atol=0.02 * np.abs(simulated).max())
    np.testing.assert_allclose(rigid.carried(found, -lever), covariance, atol=1e-12)


def test_a_turned_covariance_is_the_same_along_other_axes():
    random = np.random.default_rng(4)
    root, R = random.standard_normal((6, 6)), poses(1)[0][:3, :3]
    found = rigid.turned(root @ root.T, R)
    same = np.block([[R, np.zeros((3, 3))], [np.zeros((3, 3)), R]]) @ root
    np.testing.assert_allclose(found, same @ same.T, atol=1e-12)


def moved(x):
    return rigid.from_parts(np.eye(3), np.array([x, 0.0, 0.0]))


def test_a_buffer_interpolates_but_never_extrapolates():
    buffer = rigid.PoseBuffer()
    assert buffer.at(0) is None
    buffer.add(10 * SECOND, moved(0.0))
    buffer.add(10 * SECOND + SECOND // 2, moved(2.0))
    assert buffer.at(10 * SECOND + SECOND // 4)[0, 3] == pytest.approx(1.0)
    np.testing.assert_array_equal(buffer.at(10 * SECOND), moved(0.0))
    assert buffer.at(9 * SECOND) is None
    assert buffer.at(11 * SECOND) is None
    buffer.add(13 * SECOND, moved(3.0))
    assert buffer.at(12 * SECOND) is None, "a pause of more than a second"


def test_a_buffer_leaves_late_poses_out_and_starts_anew_with_a_recording():
    buffer = rigid.PoseBuffer()
    for i in range(100):
        buffer.add(i * SECOND // 10, moved(float(i)))
    buffer.add(95 * SECOND // 10, moved(0.0))
    assert buffer.at(95 * SECOND // 10)[0, 3] == 95.0
    buffer.add(5, moved(7.0))
    assert buffer.at(5)[0, 3] == 7.0
    assert buffer.at(95 * SECOND // 10) is None


def test_a_buffer_is_bounded_in_number_and_in_time():
    few, short = rigid.PoseBuffer(max_poses=50), rigid.PoseBuffer(span_ns=SECOND)
    for i in range(1000):
        few.add(i * SECOND // 10, moved(float(i)))
        short.add(i * SECOND // 10, moved(float(i)))
        assert len(few) <= 100
        assert len(short) <= 22
        assert few.at(max(0, i - 49) * SECOND // 10) is not None
        assert short.at(max(0, i - 9) * SECOND // 10) is not None
