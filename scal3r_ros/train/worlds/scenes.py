"""Procedural scenes: batches of analytic primitives with textures and light.

World axes follow the camera's: x right, y down, z forward, metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scal3r_ros.train.worlds.dice import Dice
from scal3r_ros.train.worlds.layouts import ENCLOSURE, LAYOUTS, TERRAIN, Layout
from scal3r_ros.train.worlds.textures import TexturePool

SCENE_KINDS = tuple(LAYOUTS)
CLEARANCE = 0.3
"""Metres kept free around every camera position."""


@dataclass(frozen=True)
class Scene:
    """W worlds of N primitives each. Primitive 0 is the enclosure: a room seen from inside, or
    ground and sky.

    shape: N times one of BOX, SPHERE, CYLINDER, ENCLOSURE, TERRAIN, the same in all worlds.
    centre, half: (W, N, 3) metres; a sphere uses half[..., 0] as radius, a cylinder half[..., 0] as
    radius, half[..., 1] as half height.
    yaw: (W, N) radians about y. texture: (W, N, 4) texture of the x sides, z sides, top (-y) and
    bottom (+y).
    texels_per_metre: (W, N). tint: (W, N, 3). shift: (W, N, 2) texels.
    light: (W, 3) unit vector towards the light. ambient: (W,). sky: (W,) bool, the enclosure above
    ground is sky.
    macro: (W, N) how strongly a second, much coarser texture modulates the first, so that it does
    not repeat.
    waves: (W, 4, 4) terrain waves (wave vector x, wave vector z, phase, amplitude in metres), all
    zero without terrain.
    """

    shape: tuple[int, ...]
    centre: Tensor
    half: Tensor
    yaw: Tensor
    texture: Tensor
    texels_per_metre: Tensor
    tint: Tensor
    shift: Tensor
    light: Tensor
    ambient: Tensor
    sky: Tensor
    macro: Tensor
    waves: Tensor

    def to(self, device: torch.device | str) -> Scene:
        """Move all tensors."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def build_scene(kind: str, path: Tensor, dice: Dice, pool: TexturePool) -> Scene:
    """Build one scene of a kind round every path.

    path: (W, S, 3) camera positions, metres. Returns W worlds.
    """
    return dress_layout(LAYOUTS[kind](path, dice), path, dice, pool)


def dress_layout(layout: Layout, path: Tensor, dice: Dice, pool: TexturePool) -> Scene:
    """Clear a layout from the path and give it textures and light."""
    centre, half = _clear_path(layout, path)
    return _dress(layout, centre, half, dice, pool)


def _clear_path(layout: Layout, path: Tensor) -> tuple[Tensor, Tensor]:
    """Shrink to nothing every object that comes nearer than CLEARANCE to a camera position."""
    offset = path[:, None] - layout.centre[:, :, None]
    cos, sin = torch.cos(layout.yaw)[..., None], torch.sin(layout.yaw)[..., None]
    local = torch.stack(
        [
            cos * offset[..., 0] - sin * offset[..., 2],
            offset[..., 1],
            sin * offset[..., 0] + cos * offset[..., 2],
        ],
        -1,
    )
    outside = (local.abs() - layout.half[:, :, None]).clamp(min=0).norm(dim=-1).amin(-1)
    solid = torch.tensor([shape not in (ENCLOSURE, TERRAIN) for shape in layout.shape])
    blocked = (outside < CLEARANCE) & solid
    far = layout.centre + torch.tensor([0.0, 1e4, 0.0])
    return torch.where(blocked[..., None], far, layout.centre), torch.where(
        blocked[..., None], layout.half * 0 + 1e-3, layout.half
    )


def _dress(layout: Layout, centre: Tensor, half: Tensor, dice: Dice, pool: TexturePool) -> Scene:
    """Choose textures, tints, lights."""
    worlds, count = centre.shape[:2]
    texture = dice.integers(*pool.surfaces, worlds, count, 4)
    same = dice.coin(0.6, worlds, count)
    same[:, 0] = False
    texture = torch.where(same[..., None], texture[..., :1], texture)
    walls = dice.integers(*pool.facades, worlds, count, 2)
    texture[..., :2] = torch.where(layout.facade[:, None], walls, texture[..., :2])
    density = torch.exp(dice.uniform(worlds, count, low=math.log(40.0), high=math.log(220.0)))
    density = torch.where(layout.facade, dice.uniform(worlds, count, low=10.0, high=20.0), density)
    if layout.outdoor:
        texture[:, 0, :3] = dice.integers(*pool.skies, worlds, 1)
        density[:, 0] = 1.0
        density[:, 1] = torch.where(
            torch.tensor(layout.shape[1] == TERRAIN),
            dice.uniform(worlds, low=15.0, high=50.0),
            density[:, 1],
        )
    tint = dice.uniform(worlds, count, 1, low=0.7, high=1.2) * dice.uniform(
        worlds, count, 3, low=0.9, high=1.1
    )
    light = dice.direction(worlds)
    light = torch.nn.functional.normalize(
        torch.stack([light[:, 0], -light[:, 1].abs() - 0.3, light[:, 2]], -1), dim=-1
    )
    return Scene(
        layout.shape, centre, half, layout.yaw, texture, density, tint, dice.uniform(worlds, count,
        2, high=128.0), light,
        dice.uniform(worlds, low=0.35, high=0.75), torch.full((worlds,), layout.outdoor),
        torch.zeros(worlds, count), layout.waves,
    )  # fmt: skip
