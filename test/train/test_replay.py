"""What a step is trained on: short clips and parts of tours, as often and as spaced as asked."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from toy_run import CLIPS  # noqa: E402

from scal3r_ros.train.replay import ClipReplay  # noqa: E402
from scal3r_ros.train.schedule import Stage  # noqa: E402
from scal3r_ros.train.worlds.clips import WorldSampler, correspondences  # noqa: E402
from scal3r_ros.train.worlds.textures import make_texture_pool  # noqa: E402
from scal3r_ros.train.worlds.tour_clips import tour_clip  # noqa: E402

STAGE = Stage("X", 1.0, 4, CLIPS, chunks=2, overlap=1, uses=2.0)


@pytest.fixture(scope="module")
def sampler():
    return WorldSampler(make_texture_pool(5, 18))


def test_chunks_of_one_draw_share_their_overlap(sampler):
    first, second = ClipReplay(sampler, STAGE, 32, 1).draw()
    assert first.images.shape == second.images.shape == (4, 3, 3, 14, 21)
    # network order of three frames: middle, first, last
    assert torch.equal(first.T_world_camera[:, 2], second.T_world_camera[:, 1])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_only_what_is_asked_for_is_rendered(sampler, share):
    replay = ClipReplay(sampler, replace(STAGE, tours=share), 32, 1)
    replay.draw()
    assert bool(replay.tours.rendered) == (share == 1.0)
    assert bool(replay.clips.rendered) == (share == 0.0)


def test_each_world_is_used_as_often_as_the_stage_says(sampler):
    replay = ClipReplay(sampler, STAGE, 10_000, 1)
    for _ in range(72):
        replay.draw()
    rendered = len(replay.clips.rendered) * replay.clips.at_once
    assert 72 * STAGE.batch / rendered == pytest.approx(STAGE.uses, rel=0.3)


def test_frames_of_a_tour_follow_at_an_even_distance(sampler):
    """Every draw is one of the rendered tour's evenly spaced selections."""
    replay = ClipReplay(sampler, replace(STAGE, tours=1.0), 16, 1)
    for _ in range(6):
        clip = replay.tours if replay.tours.rendered else replay.draw() and replay.tours
        drawn = clip.pick(replay.generator)
        poses = clip.rendered[0].T_world_camera
        same = (poses[:, :, None] == drawn.T_world_camera[0]).all((-1, -2))  # world, frame, drawn
        world = same.any(1).all(1).nonzero()
        assert len(world) == 1
        places = same[int(world)].int().argmax(0)
        assert len(set(places.diff().tolist())) == 1


def test_a_part_of_a_tour_is_one_world_seen_from_its_path(sampler):
    """Same seed, same clip; the truth matches from frame to frame, which needs one geometry."""
    settings = replace(CLIPS, size=(42, 56), frames=4)
    clip, again = (tour_clip(12, sampler, settings, 2, "room") for _ in range(2))
    assert torch.equal(clip.images, again.images)
    assert clip.images.shape == (1, 4, 3, 42, 56)
    step = clip.T_world_camera[0, :, :3, 3].diff(dim=0).norm(dim=-1)
    assert 0.01 < float(step.min()) and float(step.max()) < 1.0
    visible = correspondences(clip, 7).visible
    assert float(visible.float().mean()) > 0.3
