"""Ray casting against closed forms, and true matches against the pictures themselves."""

import math

import pytest

torch = pytest.importorskip("torch")

from scal3r_ros.train.worlds.clips import (  # noqa: E402
    ClipSettings,
    WorldSampler,
    camera_points,
    correspondences,
    reference_first,
    relative_to_reference,
)
from scal3r_ros.train.worlds.dice import Dice  # noqa: E402
from scal3r_ros.train.worlds.layouts import BOX, CYLINDER, ENCLOSURE, SPHERE, Layout  # noqa: E402
from scal3r_ros.train.worlds.rendering import focal_length, render  # noqa: E402
from scal3r_ros.train.worlds.scenes import SCENE_KINDS, dress_layout  # noqa: E402
from scal3r_ros.train.worlds.textures import LEVELS, SIZE, level_offsets, make_texture_pool  # noqa: E402


@pytest.fixture(scope="module")
def sampler():
    return WorldSampler(make_texture_pool(7, 24))


def _scene(sampler, shape, centre, half):
    """A large room with one object in it, seen from the origin."""
    layout = Layout(
        (ENCLOSURE, shape),
        torch.tensor([[[0.0, 0.0, 0.0], centre]]),
        torch.tensor([[[20.0, 20.0, 20.0], half]]),
        torch.zeros(1, 2),
        torch.zeros(2, dtype=torch.bool),
        False,
        torch.zeros(1, 4, 4),
    )
    return dress_layout(layout, torch.zeros(1, 1, 3), Dice(0), sampler.textures)


@pytest.mark.parametrize(
    ("shape", "half", "front"),
    [
        (SPHERE, [1.5, 1.5, 1.5], 5.0 - 1.5),
        (BOX, [1.0, 2.0, 0.5], 5.0 - 0.5),
        (CYLINDER, [0.7, 2.0, 0.7], 5.0 - 0.7),
    ],
)
def test_depth_of_primitives_is_the_closed_form(sampler, shape, half, front):
    scene = _scene(sampler, shape, [0.0, 0.0, 5.0], half)
    image = render(
        scene, sampler.textures, torch.eye(4)[None, None], torch.tensor([60.0]), (9, 9), 1
    )
    assert image.depth[0, 0, 4, 4] == pytest.approx(front, abs=2e-3)


def test_sphere_outline_follows_the_projection(sampler):
    scene = _scene(sampler, SPHERE, [0.0, 0.0, 6.0], [1.0, 1.0, 1.0])
    focal = 100.0
    image = render(
        scene, sampler.textures, torch.eye(4)[None, None], torch.tensor([focal]), (61, 61), 1
    )
    hit = image.depth[0, 0] < 10
    radius = focal * math.tan(math.asin(1.0 / 6.0))
    assert float(hit.sum()) == pytest.approx(math.pi * radius**2, rel=0.03)
    # Every point on it lies on the sphere.
    points = camera_points(image.depth, torch.tensor([focal]))[0, 0][hit]
    assert torch.allclose(
        (points - torch.tensor([0.0, 0.0, 6.0])).norm(dim=-1), torch.ones(()), atol=2e-3
    )


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_matches_show_the_same_surface(sampler, kind):
    """Colours at true matches agree far better than colours at the same place."""
    batch = sampler.batch(3, 6, ClipSettings(photometric=0.0), kind)
    for clips in (batch, batch.mirrored()):
        matched, same = _colour_errors(clips)
        assert matched < 0.5 * same


def _colour_errors(batch):
    worlds, frames, _, height, width = batch.images.shape
    truth = correspondences(batch, 7)
    grid = truth.position.flip(-1) * 7 + 3.5
    grid = grid / torch.tensor([width, height]) * 2 - 1
    images = batch.images[:, None].expand(-1, frames, -1, -1, -1, -1).reshape(-1, 3, height, width)
    there = torch.nn.functional.grid_sample(
        images, grid.flatten(0, 2)[:, :, None], align_corners=False
    )[..., 0]
    there = there.view(worlds, frames, frames, 3, -1)
    own = batch.images[:, :, :, 3::7, 3::7].flatten(3)
    here = own[:, :, None].expand_as(there)
    mask = truth.visible[:, :, :, None].expand_as(there)
    assert mask.float().mean() > 0.1
    other = own[:, None].expand_as(there)
    return (there - here).abs()[mask].mean(), (other - here).abs()[mask].mean()


def test_hidden_points_are_not_visible(sampler):
    """A point of the far wall seen past a box is hidden from a camera behind the box."""
    scene = _scene(sampler, BOX, [0.0, 0.0, 5.0], [1.0, 1.0, 1.0])
    T = torch.eye(4).repeat(1, 2, 1, 1)
    T[0, 1, 0, 3] = -4.0  # the second camera stands to the left and sees the wall behind the box
    focal = torch.tensor([30.0])
    image = render(scene, sampler.textures, T, focal, (35, 35), 1)
    from scal3r_ros.train.worlds.clips import ClipBatch

    truth = correspondences(ClipBatch(image.rgb, image.depth, image.solid, T, focal), 7)
    shadowed = 0
    for patch in range(25):
        row, column = divmod(patch, 5)
        if image.depth[0, 1, row * 7 + 3, column * 7 + 3] > 15:  # a wall point, from the left
            x, y, z = camera_points(image.depth, focal)[0, 1, row * 7 + 3, column * 7 + 3].tolist()
            x -= 4.0
            through = abs(x * 4 / z) < 0.95 and abs(y * 4 / z) < 0.95  # its ray passes the box
            if through:
                shadowed += 1
                assert not truth.visible[0, 1, 0, patch]
    assert shadowed


def test_a_seed_is_a_world(sampler):
    settings = ClipSettings(size=(14, 14), frames=2, sub_rays=1)
    first, again, other = (sampler.batch(seed, 2, settings) for seed in (5, 5, 6))
    for name in ("images", "depth", "T_world_camera", "focal"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.images, other.images)


def test_directions_of_motion_are_balanced(sampler):
    """No mean motion to be guessed: translations to the reference frame average out."""
    settings = ClipSettings(size=(7, 7), frames=3, sub_rays=1)
    batches = [sampler.batch(seed, 64, settings, "room") for seed in range(4)]
    order = reference_first(3)
    motion = torch.cat([relative_to_reference(b.frames(order).T_world_camera) for b in batches])
    t = motion[:, 1:, :3, 3]
    assert float((t.mean(0).norm(dim=-1) / t.norm(dim=-1).mean()).max()) < 0.2


def test_mip_levels_are_means_of_the_finest():
    pool = make_texture_pool(1, 12)
    offsets = level_offsets()
    texture = pool.texels[: offsets[-1]].float()
    finest = texture[: SIZE * SIZE].mean(0)
    for level in range(1, LEVELS):
        assert torch.allclose(
            texture[offsets[level] : offsets[level + 1]].mean(0), finest, atol=1.0
        )


def test_textures_tile_without_a_seam():
    """The step across the border is as small as the steps inside."""
    pool = make_texture_pool(2, 36)
    offsets = level_offsets()
    images = pool.texels.view(-1, offsets[-1], 3)[:, : SIZE * SIZE].float().view(-1, SIZE, SIZE, 3)
    inside = (images[:, :, 1:] - images[:, :, :-1]).abs().mean((1, 2, 3))
    across = (images[:, :, 0] - images[:, :, -1]).abs().mean((1, 2))
    assert float((across / inside.clamp(min=0.5)).median()) < 2.0


def test_field_of_view_and_focal_length_agree():
    from scal3r_ros.train.worlds.rendering import field_of_view

    focal = focal_length(torch.tensor([1.0, 1.5]), 56)
    assert torch.allclose(field_of_view(focal, (42, 56))[:, 1], torch.tensor([1.0, 1.5]))


def test_clips_turn_pause_and_travel():
    """All styles of motion occur: pure rotation, pauses inside a clip, and long travels."""
    from scal3r_ros.train.worlds.motion import MotionRange, clips

    T = clips(400, 6, Dice(1), MotionRange())
    steps = (T[:, 1:, :3, 3] - T[:, :-1, :3, 3]).norm(dim=-1)
    turning = steps.amax(1) < 0.02
    assert 0.05 < float(turning.float().mean()) < 0.2
    relative = T[turning][:, 0, :3, :3].transpose(-1, -2) @ T[turning][:, -1, :3, :3]
    angle = torch.acos(((relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1))
    assert float(angle.median()) > 0.1
    assert 0.05 < float((steps == 0).float().mean()) < 0.15
    assert float(steps.sum(1).median()) > 0.4
