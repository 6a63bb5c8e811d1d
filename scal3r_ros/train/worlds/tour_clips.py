"""Clips cut from long tours: what a sequence of the evaluation looks like, on training seeds."""

from __future__ import annotations

import torch

from scal3r_ros.train.worlds.clips import KIND_WEIGHTS, ClipBatch, ClipSettings, WorldSampler
from scal3r_ros.train.worlds.dice import Dice
from scal3r_ros.train.worlds.photometry import develop
from scal3r_ros.train.worlds.rendering import focal_length, render
from scal3r_ros.train.worlds.tours import make_tour

_LENGTH = (200, 450)
"""Frames of a whole tour: how fast the camera drives."""
_FIELD_OF_VIEW = (0.85, 1.65)


def tour_clip(
    seed: int,
    sampler: WorldSampler,
    settings: ClipSettings,
    stride: int = 2,
    kind: str | None = None,
) -> ClipBatch:
    """Every `stride`-th frame of one part of a tour, in the order of time; one world."""
    dice = Dice(seed)
    drawn = dice.weighted(KIND_WEIGHTS)
    made = make_tour(kind or drawn, int(dice.integers(*_LENGTH)), seed, sampler.textures)
    span = (settings.frames - 1) * stride + 1
    start = int(dice.integers(0, len(made.T_world_camera) - span))
    T = made.T_world_camera[None, start : start + span : stride]
    fov = dice.uniform(1, low=_FIELD_OF_VIEW[0], high=_FIELD_OF_VIEW[1])
    focal = focal_length(fov, settings.size[1])
    scene, views, focal = (x.to(sampler.device) for x in (made.scene, T, focal))
    pool, size = sampler.textures, settings.size
    image = render(scene, pool, views, focal, size, settings.sub_rays)
    rgb = develop(image.rgb, dice, settings.photometric)
    clip = ClipBatch(rgb, image.depth, image.solid, views, focal)
    return clip.frames(torch.arange(settings.frames).flip(0)) if int(dice.integers(0, 2)) else clip
