"""Clips cut from long tours: what a sequence of the evaluation looks like, on training seeds."""

from __future__ import annotations

from dataclasses import replace

import torch

from scal3r_ros.train.worlds.clips import KIND_WEIGHTS, ClipBatch, ClipSettings, WorldSampler
from scal3r_ros.train.worlds.dice import Dice
from scal3r_ros.train.worlds.photometry import develop
from scal3r_ros.train.worlds.rendering import focal_length, render
from scal3r_ros.train.worlds.tours import make_tour

_LENGTH = (200, 450)
"""Frames of a whole tour: how fast the camera drives."""
FIELD_OF_VIEW = (0.85, 1.65)


def tour_clip(
    seed: int,
    sampler: WorldSampler,
    settings: ClipSettings,
    stride: int = 2,
    kind: str | None = None,
) -> ClipBatch:
    """Every `stride`-th frame of one part of a tour, in the order of time; one world."""
    dice = Dice(seed)
    clip = rendered_tour(dice, seed, sampler, settings, stride, kind)
    clip = replace(clip, images=develop(clip.images, dice, settings.photometric))
    return clip.frames(torch.arange(settings.frames).flip(0)) if int(dice.integers(0, 2)) else clip


def rendered_tour(
    dice: Dice,
    seed: int,
    sampler: WorldSampler,
    settings: ClipSettings,
    stride: int = 2,
    kind: str | None = None,
    fields_of_view: tuple[float, float] = FIELD_OF_VIEW,
) -> ClipBatch:
    """The same as rendered, before a camera makes images of it."""
    drawn = dice.weighted(KIND_WEIGHTS)
    made = make_tour(kind or drawn, int(dice.integers(*_LENGTH)), seed, sampler.textures)
    span = (settings.frames - 1) * stride + 1
    start = int(dice.integers(0, len(made.T_world_camera) - span))
    T = made.T_world_camera[None, start : start + span : stride]
    fov = dice.uniform(1, low=fields_of_view[0], high=fields_of_view[1])
    focal = focal_length(fov, settings.size[1])
    scene, views, focal = (x.to(sampler.device) for x in (made.scene, T, focal))
    pool, size = sampler.textures, settings.size
    image = render(scene, pool, views, focal, size, settings.sub_rays)
    return ClipBatch(image.rgb, image.depth, image.solid, views, focal)
