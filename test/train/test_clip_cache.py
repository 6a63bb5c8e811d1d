"""Rendered worlds on disk: what is read again is the world that was written."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from toy_run import CLIPS  # noqa: E402

from scal3r_ros.train.clip_cache import ClipCache, write_clip, zoomed  # noqa: E402
from scal3r_ros.train.replay import CachedReplay  # noqa: E402
from scal3r_ros.train.schedule import Stage  # noqa: E402
from scal3r_ros.train.worlds.clips import (  # noqa: E402
    ClipSettings,
    WorldSampler,
    camera_points,
    correspondences,
)
from scal3r_ros.train.worlds.dice import Dice  # noqa: E402
from scal3r_ros.train.worlds.photographs import with_photographs  # noqa: E402
from scal3r_ros.train.worlds.textures import SIZE, make_texture_pool  # noqa: E402
from scal3r_ros.train.worlds.tour_clips import rendered_tour  # noqa: E402


@pytest.fixture(scope="module")
def tour():
    sampler = WorldSampler(make_texture_pool(5, 18))
    settings = ClipSettings(size=(48, 64), frames=10, sub_rays=1)
    return rendered_tour(Dice(3), 3, sampler, settings, kind="room")


@pytest.fixture
def folder(tour, tmp_path):
    write_clip(tmp_path / "tour-000000.pt", tour)
    return tmp_path


def test_a_zoomed_image_shows_the_same_points(tour):
    near = zoomed(tour, (24, 32), 0.5)
    assert near.focal == pytest.approx(tour.focal)
    found = camera_points(near.depth, near.focal)
    expected = camera_points(tour.depth, tour.focal)[:, :, 12:36, 16:48]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(near.images, tour.images[..., 12:36, 16:48], atol=1e-4, rtol=0)


def test_a_draw_is_a_rigid_world(folder):
    """Matches computed from what was read: colours agree far better than those of random pixels."""
    replay = CachedReplay(folder, Stage("X", 1.0, 2, replace(CLIPS, size=(40, 56), frames=4)), 1)
    (chunk,) = replay.draw()
    assert chunk.images.shape == (2, 4, 3, 40, 56)
    truth = correspondences(chunk, 8)
    centre = chunk.images[0, 0, :, 4::8, 4::8].flatten(1)
    errors, others = [], []
    for frame in range(1, 4):
        place = (truth.position[0, 0, frame] * 8 + 4).long()[truth.visible[0, 0, frame]]
        place = torch.minimum(place.clamp(min=0), torch.tensor([39, 55]))
        seen = chunk.images[0, frame][:, place[:, 0], place[:, 1]]
        errors.append((seen - centre[:, truth.visible[0, 0, frame]]).abs().mean())
        others.append((seen.flip(1) - centre[:, truth.visible[0, 0, frame]]).abs().mean())
    assert sum(errors) < 0.7 * sum(others)


def test_chunks_of_cached_worlds_share_their_overlap(folder):
    stage = Stage("X", 1.0, 1, replace(CLIPS, frames=4), chunks=3, overlap=1)
    first, second, third = CachedReplay(folder, stage, 1).draw()
    assert torch.equal(first.T_world_camera[:, 3], second.T_world_camera[:, 1])
    assert torch.equal(second.images[:, 3], third.images[:, 1])


def test_a_world_too_short_for_a_stage_is_refused(folder):
    stage = Stage("X", 1.0, 1, replace(CLIPS, frames=11))
    with pytest.raises(ValueError, match="draws 11 frames, the cached worlds have 10"):
        CachedReplay(folder, stage, 1).draw()


def test_an_empty_folder_says_how_to_fill_it(tmp_path):
    with pytest.raises(ValueError, match="scal3r_ros.train.clip_cache"):
        ClipCache(tmp_path)


def test_photographs_become_surfaces_without_a_seam(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.linear_gradient("L").convert("RGB").save(tmp_path / "ramp.png")
    pool = make_texture_pool(5, 18)
    found = with_photographs(pool, tmp_path, 0, share=0.5)
    count = pool.skies[1]
    before, after = (p.texels.view(count, -1, 3)[:, : SIZE**2] for p in (pool, found))
    changed = (before != after).flatten(1).any(1).nonzero()[:, 0]
    assert len(changed) == round(0.5 * (pool.surfaces[1] - pool.surfaces[0]))
    assert bool((changed < pool.surfaces[1]).all())
    crop = after[changed[0]].view(SIZE, SIZE, 3).int()
    assert torch.equal(crop[0], crop[-1]) and torch.equal(crop[:, 0], crop[:, -1])
    with pytest.raises(ValueError, match="no photographs"):
        with_photographs(pool, tmp_path / "nothing", 0)
