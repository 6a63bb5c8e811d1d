"""Group laws of Sim(3), against the matrix exponential and finite differences."""

import numpy as np
import pytest
from scipy.linalg import expm

from scal3r_ros.mapping.sim3 import Sim3, right_jacobian_inverse, skew


@pytest.fixture
def tangents() -> np.ndarray:
    """Large, ordinary and tiny tangents, some without rotation or scale."""
    vectors = np.random.default_rng(1).normal(size=(60, 7))
    vectors[20:40] *= 1e-5
    vectors[40, 3:6] = 0.0
    vectors[41, 6] = 0.0
    vectors[42] = 0.0
    vectors[43, 3:6] *= 3.1 / np.linalg.norm(vectors[43, 3:6])
    vectors[44, 6] = 4.0
    turn = np.linalg.norm(vectors[:, 3:6], axis=1)
    vectors[turn > 3.12, 3:6] *= 0.5
    return vectors


def test_exp_is_the_matrix_exponential(tangents):
    for tangent in tangents:
        algebra = np.zeros((4, 4))
        algebra[:3, :3] = skew(tangent[3:6]) + tangent[6] * np.eye(3)
        algebra[:3, 3] = tangent[:3]
        np.testing.assert_allclose(Sim3.exp(tangent).matrix(), expm(algebra), rtol=1e-10, atol=1e-9)


def test_log_inverts_exp(tangents):
    np.testing.assert_allclose(Sim3.exp(tangents).log(), tangents, rtol=0, atol=1e-12)


def test_composition_inverse_and_apply_agree(tangents):
    a, b = Sim3.exp(tangents[:20]), Sim3.exp(tangents[40:])
    points = np.random.default_rng(2).normal(size=(20, 5, 3))
    np.testing.assert_allclose((a @ b).apply(points), a.apply(b.apply(points)), atol=1e-11)
    np.testing.assert_allclose(
        (a @ a.inverse()).matrix(), np.tile(np.eye(4), (20, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose((a @ b).matrix(), a.matrix() @ b.matrix(), atol=1e-11)


def test_an_array_of_transforms_equals_its_items(tangents):
    whole = Sim3.exp(tangents)
    for i, tangent in enumerate(tangents):
        np.testing.assert_allclose(whole[i].matrix(), Sim3.exp(tangent).matrix(), atol=1e-15)


def test_adjoint_moves_a_tangent_to_the_other_side(tangents):
    S, step = Sim3.exp(tangents), 0.1 * np.random.default_rng(3).normal(size=tangents.shape)
    moved = (S.adjoint() @ step[..., None])[..., 0]
    np.testing.assert_allclose(
        (S @ Sim3.exp(step)).matrix(), (Sim3.exp(moved) @ S).matrix(), rtol=1e-10, atol=1e-10
    )


def test_right_jacobian_against_finite_differences(tangents):
    near_pi = np.linalg.norm(tangents[:, 3:6], axis=1) > 3.0
    tangents = tangents[~near_pi]
    S, jacobian = Sim3.exp(tangents), right_jacobian_inverse(tangents)
    for axis in range(7):
        step = np.zeros(7)
        step[axis] = 1e-6
        slope = ((S @ Sim3.exp(step)).log() - (S @ Sim3.exp(-step)).log()) / 2e-6
        np.testing.assert_allclose(jacobian[:, :, axis], slope, rtol=1e-6, atol=1e-7)


def test_moving_a_pose_stays_rigid_and_moves_the_camera_centre(tangents):
    S, pose = Sim3.exp(tangents[0]), Sim3.exp(np.r_[1.0, 2.0, 3.0, 0.3, 0.2, 0.1, 0.0]).matrix()
    moved = S.move_pose(pose)
    np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(moved[:3, 3], S.apply(pose[None, :3, 3])[0], atol=1e-12)
    np.testing.assert_allclose(moved[:3, :3], S.rotation @ pose[:3, :3], atol=1e-12)


def test_points_keep_their_precision():
    points = np.ones((4, 3), np.float32)
    assert Sim3.identity().apply(points).dtype == np.float32
    assert Sim3.identity().apply(points.astype(np.float64)).dtype == np.float64


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="scale must be positive"):
        Sim3(0.0, np.eye(3), np.zeros(3))
    with pytest.raises(ValueError, match="needs scale"):
        Sim3(np.ones(2), np.eye(3), np.zeros(3))
