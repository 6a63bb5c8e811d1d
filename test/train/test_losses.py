"""Losses vanish at the truth and nowhere near it; targets are the geometry they claim to be."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scal3r_ros.train.losses import (  # noqa: E402
    LossWeights,
    camera_loss,
    depth_loss,
    make_targets,
    matching_loss,
    quaternion,
    scene_scale,
)
from scal3r_ros.train.objective import group_targets  # noqa: E402
from scal3r_ros.train.scores import baseline, rotation_matrix, score  # noqa: E402
from scal3r_ros.train.worlds.clips import (  # noqa: E402
    ClipSettings,
    Correspondences,
    WorldSampler,
    correspondences,
    reference_first,
)
from scal3r_ros.train.worlds.motion import rotation_from_vector  # noqa: E402
from scal3r_ros.train.worlds.textures import make_texture_pool  # noqa: E402


@pytest.fixture(scope="module")
def clip():
    sampler = WorldSampler(make_texture_pool(3, 24))
    batch = sampler.batch(11, 5, ClipSettings(size=(28, 42), frames=4), "clutter")
    return batch.frames(reference_first(4))


@pytest.fixture(scope="module")
def targets(clip):
    return make_targets(clip, scene_scale(clip))


def test_quaternions_and_matrices_are_inverse():
    vectors = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors = vectors / vectors.norm(dim=-1, keepdim=True) * torch.linspace(1e-6, 3.0, 200)[:, None]
    rotation = rotation_from_vector(vectors)
    assert torch.allclose(rotation_matrix(quaternion(rotation)), rotation, atol=1e-7)
    assert torch.allclose(rotation @ rotation.transpose(-1, -2), torch.eye(3).double(), atol=1e-9)


def test_reference_camera_is_the_origin(targets):
    expected = torch.tensor([0.0, 0, 0, 0, 0, 0, 1])
    assert torch.allclose(targets.encoding[:, 0, :7], expected.expand(5, -1), atol=1e-5)


def test_chunks_of_one_world_are_measured_by_the_first(clip):
    """A second chunk twice as large has twice the translations and depths."""
    T = clip.T_world_camera.clone()
    T[..., :3, 3] *= 2
    larger = replace(clip, depth=2 * clip.depth, T_world_camera=T)
    first, second = group_targets([clip, larger])
    assert torch.allclose(second.encoding[..., :3], 2 * first.encoding[..., :3], atol=1e-5)
    assert torch.allclose(second.log_depth, first.log_depth + np.log(2), atol=1e-4)
    assert torch.allclose(first.scale, scene_scale(clip))


def test_points_of_every_frame_project_back(clip, targets):
    """Encoding, points and depth agree: moved into its own camera, a point has its depth."""
    R = rotation_matrix(targets.encoding[..., 3:7])
    local = torch.einsum("wsij,wshvj->wshvi", R, targets.points)
    local = local + targets.encoding[..., None, None, :3]
    assert torch.allclose(local[..., 2], targets.log_depth.exp(), rtol=1e-3, atol=1e-4)


def test_scale_is_that_of_the_points(clip, targets):
    assert targets.points.norm(dim=-1)[clip.solid].log().mean() == pytest.approx(0.0, abs=0.05)


def test_truth_scores_perfectly_and_baselines_do_not(targets):
    found = score(targets.encoding, 3.0 * targets.log_depth.exp(), targets).summary()
    assert found["rotation"] < 0.1 and found["direction"] < 0.1
    assert found["abs_rel"] < 1e-4 and found["delta"] == 1.0
    mean_depth = targets.log_depth.mean((0, 1))
    blind = baseline(targets, mean_depth, torch.zeros(4, 3)).summary()
    assert blind["rotation"] > 1.0 and blind["abs_rel"] > 0.05


def test_camera_and_depth_losses_vanish_at_the_truth(targets):
    pose, fov = camera_loss(targets.encoding[None], targets, LossWeights())
    assert pose < 1e-6 and fov < 1e-6
    depth = targets.log_depth.exp()
    sure = uniform(targets, 51.0)
    at_truth = depth_loss(depth, sure, targets)
    assert at_truth < 1e-4
    assert depth_loss(depth * 1.3, sure, targets) > at_truth + 0.1
    wave = torch.exp(0.3 * torch.sin(torch.arange(42.0)))
    assert depth_loss(depth * wave, sure, targets) > 0.2


def uniform(targets, confidence):
    """The same confidence where there is something, and the lowest in the sky."""
    return torch.full_like(targets.log_depth, confidence).where(
        targets.solid, targets.log_depth.new_tensor(1.02)
    )


def test_confidence_pays_only_where_depth_is_right(targets):
    depth = targets.log_depth.exp()
    low, high = torch.full_like(depth, 1.1), torch.full_like(depth, 4.0)
    assert depth_loss(depth, high, targets) < depth_loss(depth, low, targets)
    assert depth_loss(depth * 2, high, targets) > depth_loss(depth * 2, low, targets)


def test_confidence_does_not_decide_which_depth_is_learned(targets):
    """It is told the error, and the depth's gradient does not see it. Nor does it die: one that has
    fallen to 1.00001 feels the head's output as much as another."""
    gradients, pulls = [], []
    for raw in (-11.5, -3.0):
        depth = (targets.log_depth.exp() * 1.4).requires_grad_()
        output = torch.full_like(depth, raw).requires_grad_()
        depth_loss(depth, 1 + output.exp(), targets).backward()
        gradients.append(depth.grad)
        pulls.append(output.grad[targets.solid])
    assert torch.equal(*gradients)
    assert (pulls[0] < 0).all() and pulls[0].mean() < 0.9 * pulls[1].mean() < 0


def test_the_best_confidence_is_inverse_to_the_error(targets):
    depth, steps = targets.log_depth.exp() * 1.25, torch.linspace(1.05, 6.0, 100)
    losses = [float(depth_loss(depth, uniform(targets, float(c)), targets)) for c in steps]
    assert steps[int(np.argmin(losses))] == pytest.approx(0.5 / np.log(1.25), rel=0.05)


def test_matching_loss_prefers_the_true_place():
    """Keys that mark every place, queries that ask for the true one: error near zero."""
    grid, places = (3, 4), 12
    truth = torch.stack(
        [torch.tensor([p // 4, p % 4]).float() for p in torch.randperm(places).tolist()]
    )
    position = truth.expand(1, 2, 2, places, 2).clone()
    visible = torch.ones(1, 2, 2, places, dtype=torch.bool)
    keys = 40.0 * torch.eye(places).expand(1, 2, places, places)
    queries = torch.eye(places)[(truth[:, 0] * 4 + truth[:, 1]).long()].expand(1, 2, places, places)
    special = torch.zeros(1, 2, 5, places)
    q = torch.cat([special, queries], 2).flatten(1, 2)
    k = torch.cat([special, keys], 2).flatten(1, 2)
    match = matching_loss(q, k, Correspondences(position, visible), grid, 5)
    lost = matching_loss(q, 0 * k, Correspondences(position, visible), grid, 5)
    assert match.error < 0.01 and match.loss < 0.01
    assert lost.loss > 2.0
    assert lost.same_place == match.same_place and match.same_place > 0.5


def test_matching_loss_ignores_what_is_not_visible(clip):
    truth = correspondences(clip, 7)
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(5, 4 * (24 + 5), 8, generator=generator) for _ in range(2))
    changed = truth.position + 3.0 * (~truth.visible)[..., None]
    same = matching_loss(q, k, Correspondences(changed, truth.visible), (4, 6), 5)
    assert torch.equal(same.loss, matching_loss(q, k, truth, (4, 6), 5).loss)
