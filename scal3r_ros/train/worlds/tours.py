"""Long closed camera tours through one world: for evaluation, and for the demo recording."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scal3r_ros.train.worlds.dice import Dice
from scal3r_ros.train.worlds.layouts import (
    BOX,
    ENCLOSURE,
    Layout,
    assemble,
    bounds,
    ground,
    objects,
    primitive,
    terrain,
)
from scal3r_ros.train.worlds.motion import ellipse, rounded_rectangle, tour
from scal3r_ros.train.worlds.photometry import quantised
from scal3r_ros.train.worlds.rendering import focal_length, render
from scal3r_ros.train.worlds.scenes import Scene, dress_layout
from scal3r_ros.train.worlds.textures import TexturePool

GAZES = ("ahead", "left", "right", "back", "inside")
_LAPS = 1.15
_SLICE = 6
"""Views rendered at once."""


@dataclass(frozen=True)
class Tour:
    """One world and a camera path through it that passes its start again.

    T_world_camera: (S, 4, 4). fov: horizontal field of view, radians.
    """

    kind: str
    scene: Scene
    T_world_camera: Tensor
    fov: float
    seed: int


def make_tour(kind: str, frames: int, seed: int, pool: TexturePool, gaze: str = "") -> Tour:
    """A tour of a kind of world; the gaze is drawn unless given."""
    dice = Dice(seed)
    curve = _CURVES[kind](dice)
    drawn = GAZES[int(dice.integers(0, 4 if kind in ("corridor", "street") else 5))]
    T = tour(curve, frames, _LAPS, gaze or drawn, dice)
    path = T[None, :, :3, 3]
    scene = dress_layout(_LAYOUTS[kind](path, dice), path, dice, pool)
    scene = replace(
        scene,
        texels_per_metre=scene.texels_per_metre * (1.0 if kind in ("street", "terrain") else 0.6),
        macro=torch.full_like(scene.macro, 0.8),
    )
    return Tour(kind, scene, T, float(dice.uniform(low=1.05, high=1.5)), seed)


def film(
    made: Tour, pool: TexturePool, size: tuple[int, int], noise: float = 0.006
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Render a tour in slices: images (s, 3, H, W), z-depth (s, H, W) in metres, solid (s, H, W).

    Exposure is metered once and then drifts by a tenth. noise: standard deviation.
    """
    dice = Dice(made.seed + 1)
    focal = focal_length(torch.tensor([made.fov]), size[1])
    phase = torch.linspace(0, 4 * torch.pi, len(made.T_world_camera))
    gains = (1 + 0.1 * torch.sin(phase)).split(_SLICE)
    meter = None
    for views, gain in zip(made.T_world_camera.split(_SLICE), gains):
        image = render(made.scene, pool, views[None], focal, size, 2)
        meter = float(0.42 / image.rgb.mean().clamp(min=0.1)) if meter is None else meter
        yield (
            quantised(image.rgb[0] * meter * gain[:, None, None, None], noise, dice),
            *(x[0] for x in image[1:]),
        )


def _room_curve(dice: Dice) -> Tensor:
    half = dice.uniform(2, low=1.2, high=2.4).tolist()
    return ellipse(*half, wobble=0.15, dice=dice)


def _ring_curve(dice: Dice) -> Tensor:
    half = dice.uniform(2, low=3.5, high=7.0).tolist()
    return rounded_rectangle(*half, radius=1.2)


def _street_curve(dice: Dice) -> Tensor:
    half = dice.uniform(2, low=12.0, high=20.0).tolist()
    return rounded_rectangle(*half, radius=5.0)


def _terrain_curve(dice: Dice) -> Tensor:
    half = dice.uniform(2, low=6.0, high=12.0).tolist()
    return ellipse(*half, wobble=0.1, dice=dice)


def _enclosed(path: Tensor, dice: Dice, margin: float, counts: tuple, sizes: tuple) -> Layout:
    low, high = bounds(path)
    low = low - torch.stack(
        [_between(dice, margin), _between(dice, 0.7), _between(dice, margin)], -1
    )
    high = high + torch.stack(
        [_between(dice, margin), _between(dice, 0.7), _between(dice, margin)], -1
    )
    parts = [primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2)]
    parts += objects(dice, low, high, counts, sizes, 0.6)
    return assemble(parts, dice, outdoor=False)


def _between(dice: Dice, low: float) -> Tensor:
    """One world's value between `low` and twice that."""
    return dice.uniform(1, low=low, high=2 * low)


def _room(path: Tensor, dice: Dice) -> Layout:
    return _enclosed(path, dice, 1.1, (26, 4, 6), (0.2, 0.8))


def _clutter(path: Tensor, dice: Dice) -> Layout:
    return _enclosed(path, dice, 2.0, (34, 10, 8), (0.15, 0.7))


def _ring(path: Tensor, dice: Dice) -> Layout:
    """A corridor round one solid block."""
    low, high = bounds(path)
    width = torch.tensor([1.1, 1.2, 1.1])
    block = (high - low) / 2 - width
    block[:, 1] = 4.0
    middle = (low + high) / 2
    low, high = low - width, high + width
    parts = [
        primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2),
        (BOX, middle[:, None], block[:, None]),
    ]
    parts += objects(dice, low, high, (60, 6, 12), (0.15, 0.6), 0.7)
    return assemble(parts, dice, outdoor=False, aligned_first=1)


def _block_of_houses(path: Tensor, dice: Dice) -> Layout:
    """A street round one block, houses on both sides, cars and poles."""
    low, high = ground(path, dice, 60.0, (1.3, 1.8))
    floor = high[:, 1]
    near, far = bounds(path)
    count = 32
    angle = torch.arange(count)[None] * (2 * torch.pi / (count // 2))
    outside = torch.where(torch.arange(count) < count // 2, 1.0, -1.0)
    reach = (far - near)[:, None, [0, 2]] / 2
    half = torch.stack(
        [
            dice.uniform(1, count, low=2.0, high=3.2),
            dice.uniform(1, count, low=2.5, high=7.0),
            dice.uniform(1, count, low=2.0, high=3.2),
        ],
        -1,
    )
    edge = reach + outside[None, :, None] * (4.0 + half[..., [0, 2]])
    square = torch.stack([torch.cos(angle), torch.sin(angle)], -1)
    square = square / square.abs().amax(-1, keepdim=True)
    place = (near + far)[:, None, [0, 2]] / 2 + square * edge
    centre = torch.stack([place[..., 0], floor[:, None] - half[..., 1], place[..., 1]], -1)
    parts = [
        primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2),
        (BOX, centre, half),
    ]
    low = torch.stack([near[:, 0] - 4, floor - 2, near[:, 2] - 4], -1)
    high = torch.stack([far[:, 0] + 4, floor, far[:, 2] + 4], -1)
    parts += objects(dice, low, high, (24, 4, 16), (0.25, 0.9), 1.0)
    return assemble(parts, dice, outdoor=True, facades=count)


def _hills(path: Tensor, dice: Dice) -> Layout:
    layout = terrain(path, dice)
    low, high = bounds(path)
    spread = layout.centre - path.mean(1)[:, None]
    size = ((high - low) / 2 + 6.0) / 10.0
    solid = torch.arange(len(layout.shape)) > 1
    wide = (
        path.mean(1)[:, None]
        + spread * torch.stack([size[:, 0], torch.ones(1), size[:, 2]], -1)[:, None]
    )
    return replace(layout, centre=torch.where(solid[None, :, None], wide, layout.centre))


_CURVES = {
    "room": _room_curve,
    "clutter": _room_curve,
    "corridor": _ring_curve,
    "street": _street_curve,
    "terrain": _terrain_curve,
}
_LAYOUTS = {
    "room": _room,
    "clutter": _clutter,
    "corridor": _ring,
    "street": _block_of_houses,
    "terrain": _hills,
}
