"""Procedural scenes: rooms, corridor rings, streets, clutter and terrain, as batches of analytic primitives.

A scene is built around a camera path that is given first, so that no camera sits inside an object and no sampling is rejected.
World axes follow the camera's: x right, y down, z forward, metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scal3r_ros.train.textures import TexturePool

KINDS = ("room", "corridor", "street", "clutter", "terrain")
BOX, SPHERE, CYLINDER, ENCLOSURE, TERRAIN = range(5)
CLEARANCE = 0.3
"""Metres kept free around every camera position."""


@dataclass(frozen=True)
class Scene:
    """W worlds of N primitives each. Primitive 0 is the enclosure: a room seen from inside, or ground and sky.

    shape: N times one of BOX, SPHERE, CYLINDER, ENCLOSURE, TERRAIN, the same in all worlds.
    centre, half: (W, N, 3) metres; a sphere uses half[..., 0] as radius, a cylinder half[..., 0] as radius, half[..., 1] as half height.
    yaw: (W, N) radians about y. texture: (W, N, 4) texture of the x sides, z sides, top (-y) and bottom (+y).
    texels_per_metre: (W, N). tint: (W, N, 3). shift: (W, N, 2) texels.
    light: (W, 3) unit vector towards the light. ambient: (W,). sky: (W,) bool, the enclosure above ground is sky.
    waves: (W, 4, 4) terrain waves (wave vector x, wave vector z, phase, amplitude in metres), all zero without terrain.
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
    waves: Tensor

    def to(self, device: torch.device | str) -> Scene:
        """Move all tensors."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


class Dice:
    """Random numbers of one generator, on the CPU so that a seed means the same world on every device."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform values in [low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values."""
        return torch.randn(shape, generator=self.generator)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Integers in [low, high)."""
        return torch.randint(low, high, shape, generator=self.generator)

    def coin(self, probability: float, *shape: int) -> Tensor:
        """True with the given probability."""
        return torch.rand(shape, generator=self.generator) < probability

    def direction(self, *shape: int) -> Tensor:
        """Uniform unit vectors, (*shape, 3)."""
        return torch.nn.functional.normalize(self.normal(*shape, 3), dim=-1)


def build_scene(kind: str, path: Tensor, dice: Dice, pool: TexturePool) -> Scene:
    """Build one scene of a kind round every path.

    path: (W, S, 3) camera positions, metres. Returns W worlds.
    """
    layout = {
        "room": _room,
        "corridor": _corridor,
        "street": _street,
        "clutter": _clutter,
        "terrain": _terrain,
    }[kind](path, dice)
    centre, half = _clear_path(layout, path)
    return _dress(layout, centre, half, dice, pool)


@dataclass(frozen=True)
class _Layout:
    """Geometry before it is cleared from the path and dressed. `facade`: (N,) bool, primitives with windows."""

    shape: tuple[int, ...]
    centre: Tensor
    half: Tensor
    yaw: Tensor
    facade: Tensor
    outdoor: bool
    waves: Tensor


def _primitive(shape: int, centre: Tensor, half: Tensor) -> tuple[int, Tensor, Tensor]:
    return shape, centre, half


def _assemble(
    parts: list,
    dice: Dice,
    outdoor: bool,
    facades: int = 0,
    upright_yaw: bool = False,
    waves: Tensor | None = None,
) -> _Layout:
    """Concatenate (shape, centre (W, n, 3), half (W, n, 3)) groups; the `facades` boxes after the enclosure have windows."""
    shape = tuple(s for s, c, _ in parts for _ in range(c.shape[1]))
    centre, half = torch.cat([c for _, c, _ in parts], 1), torch.cat([h for _, _, h in parts], 1)
    worlds, count = centre.shape[:2]
    yaw = dice.uniform(worlds, count, low=-math.pi, high=math.pi)
    aligned = dice.coin(0.5, worlds, count) | torch.tensor(
        [upright_yaw and i < 2 for i in range(count)]
    )
    yaw = torch.where(aligned, torch.zeros(()), yaw)
    facade = torch.zeros(count, dtype=torch.bool)
    facade[1 : 1 + facades] = True
    yaw[:, 0] = 0.0
    yaw[:, facade] = yaw[:, facade] * 0.03
    return _Layout(
        shape,
        centre,
        half,
        yaw,
        facade,
        outdoor,
        torch.zeros(worlds, 4, 4) if waves is None else waves,
    )


def _bounds(path: Tensor) -> tuple[Tensor, Tensor]:
    return path.amin(1), path.amax(1)


def _scatter(dice: Dice, low: Tensor, high: Tensor, count: int) -> Tensor:
    """`count` uniform positions in every world's box low..high (W, 3): (W, count, 3)."""
    return low[:, None] + (high - low)[:, None] * dice.uniform(len(low), count, 3)


def _stand(centre: Tensor, half: Tensor, floor: Tensor, dice: Dice, probability: float) -> Tensor:
    """Put a share of the objects on the floor (W,), y down."""
    standing = centre.clone()
    standing[..., 1] = floor[:, None] - half[..., 1]
    return torch.where(dice.coin(probability, *centre.shape[:2])[..., None], standing, centre)


def _sizes(dice: Dice, worlds: int, count: int, low: float, high: float) -> Tensor:
    """Half sizes, log-uniform, with a different stretch per axis."""
    scale = torch.exp(dice.uniform(worlds, count, 1, low=math.log(low), high=math.log(high)))
    return scale * torch.exp(dice.uniform(worlds, count, 3, low=-0.6, high=0.6))


def _objects(
    dice: Dice,
    low: Tensor,
    high: Tensor,
    counts: tuple[int, int, int],
    sizes: tuple[float, float],
    standing: float,
) -> list:
    """Boxes, spheres and cylinders scattered in low..high, a share of them on the floor high[1]."""
    groups = []
    for shape, count in zip((BOX, SPHERE, CYLINDER), counts):
        half = _sizes(dice, len(low), count, *sizes)
        if shape != BOX:
            half = half * torch.tensor([0.7, 1.4 if shape == CYLINDER else 0.7, 0.7])
            half[..., 2] = half[..., 0]
            if shape == SPHERE:
                half[..., 1] = half[..., 0]
        centre = _stand(_scatter(dice, low, high, count), half, high[:, 1], dice, standing)
        groups.append((shape, centre, half))
    return groups


def _room(path: Tensor, dice: Dice) -> _Layout:
    low, high = _bounds(path)
    worlds = len(low)
    side = torch.exp(dice.uniform(worlds, 2, 2, low=math.log(1.0), high=math.log(5.0)))
    low = low - torch.stack(
        [side[:, 0, 0], dice.uniform(worlds, low=0.5, high=1.6), side[:, 0, 1]], -1
    )
    high = high + torch.stack(
        [side[:, 1, 0], dice.uniform(worlds, low=0.5, high=1.7), side[:, 1, 1]], -1
    )
    parts = [_primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2)]
    parts += _objects(dice, low, high, (12, 3, 3), (0.15, 0.9), 0.65)
    return _assemble(parts, dice, outdoor=False)


def _corridor(path: Tensor, dice: Dice) -> _Layout:
    low, high = _bounds(path)
    worlds = len(low)
    along = dice.coin(0.5, worlds)
    near = dice.uniform(worlds, 2, low=0.5, high=1.6)
    far = dice.uniform(worlds, 2, low=3.0, high=14.0)
    margin_x, margin_z = (
        torch.where(along[:, None], far, near),
        torch.where(along[:, None], near, far),
    )
    low = low - torch.stack(
        [margin_x[:, 0], dice.uniform(worlds, low=0.6, high=1.4), margin_z[:, 0]], -1
    )
    high = high + torch.stack(
        [margin_x[:, 1], dice.uniform(worlds, low=0.6, high=1.6), margin_z[:, 1]], -1
    )
    parts = [_primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2)]
    pillars = _objects(dice, low, high, (10, 1, 3), (0.15, 0.6), 0.7)
    doors = _sizes(dice, worlds, 4, 0.5, 0.9) * torch.tensor([1.0, 1.2, 1.0])
    place = _scatter(dice, low, high, 4)
    side = torch.where(dice.coin(0.5, worlds, 4), low[:, None, 2], high[:, None, 2])
    across = torch.where(dice.coin(0.5, worlds, 4), low[:, None, 0], high[:, None, 0])
    place = torch.stack(
        [
            torch.where(along[:, None], place[..., 0], across),
            place[..., 1],
            torch.where(along[:, None], side, place[..., 2]),
        ],
        -1,
    )
    return _assemble([*parts, (BOX, place, doors), *pillars], dice, outdoor=False)


def _ground(
    path: Tensor, dice: Dice, reach: float, height: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Enclosure of an outdoor world: ground `height` metres below the lowest camera, sky `reach` metres away."""
    low, high = _bounds(path)
    floor = high[:, 1] + dice.uniform(len(low), low=height[0], high=height[1])
    return (
        torch.stack([low[:, 0] - reach, low[:, 1] - reach, low[:, 2] - reach], -1),
        torch.stack([high[:, 0] + reach, floor, high[:, 2] + reach], -1),
    )


def _street(path: Tensor, dice: Dice) -> _Layout:
    low, high = _ground(path, dice, 80.0, (0.9, 2.5))
    worlds, middle, floor = len(low), path.mean(1), high[:, 1]
    count = 12
    row = torch.arange(count) % 2 * 2.0 - 1.0
    step = (torch.arange(count) // 2 - 2.5).float()
    width = dice.uniform(worlds, 1, low=3.0, high=9.0)
    half = torch.stack(
        [
            dice.uniform(worlds, count, low=2.0, high=4.5),
            dice.uniform(worlds, count, low=2.0, high=9.0),
            dice.uniform(worlds, count, low=2.5, high=6.0),
        ],
        -1,
    )
    place = torch.stack(
        [
            row * (width + half[..., 0]) + middle[:, None, 0],
            floor[:, None] - half[..., 1],
            step * 10.0 + middle[:, None, 2] + dice.uniform(worlds, count, low=-2, high=2),
        ],
        -1,
    )
    turn = dice.coin(0.5, worlds)[:, None, None]
    swap = torch.stack(
        [
            place[..., 2] - middle[:, None, 2] + middle[:, None, 0],
            place[..., 1],
            place[..., 0] - middle[:, None, 0] + middle[:, None, 2],
        ],
        -1,
    )
    place, half = torch.where(turn, swap, place), torch.where(turn, half[..., [2, 1, 0]], half)
    near_low = torch.stack([middle[:, 0] - 9, floor - 3, middle[:, 2] - 9], -1)
    near_high = torch.stack([middle[:, 0] + 9, floor, middle[:, 2] + 9], -1)
    parts = [
        _primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2),
        (BOX, place, half),
    ]
    parts += _objects(dice, near_low, near_high, (6, 2, 5), (0.25, 1.1), 0.9)
    return _assemble(parts, dice, outdoor=True, facades=count)


def _clutter(path: Tensor, dice: Dice) -> _Layout:
    low, high = _bounds(path)
    worlds = len(low)
    low = low - dice.uniform(worlds, 3, low=1.0, high=4.0)
    high = high + dice.uniform(worlds, 3, low=1.0, high=4.0)
    parts = [_primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2)]
    parts += _objects(dice, low, high, (15, 5, 4), (0.12, 0.8), 0.3)
    return _assemble(parts, dice, outdoor=False)


def _terrain(path: Tensor, dice: Dice) -> _Layout:
    low, high = _ground(path, dice, 60.0, (0.8, 2.5))
    worlds, floor = len(low), high[:, 1]
    length = torch.tensor([25.0, 12.0, 6.0, 3.0]) * dice.uniform(worlds, 4, low=0.7, high=1.4)
    heading = dice.uniform(worlds, 4, high=2 * math.pi)
    amplitude = length * dice.uniform(worlds, 4, low=0.02, high=0.09)
    amplitude = (
        amplitude
        * (0.8 * (floor - path[..., 1].amax(1)) / amplitude.sum(1)).clamp(max=1.0)[:, None]
    )
    waves = (
        torch.stack([torch.cos(heading), torch.sin(heading)], -1)
        * (2 * math.pi / length)[..., None]
    )
    waves = torch.cat(
        [waves, dice.uniform(worlds, 4, 1, high=2 * math.pi), amplitude[..., None]], -1
    )
    middle = path.mean(1)
    near_low = torch.stack([middle[:, 0] - 10, floor - 2, middle[:, 2] - 10], -1)
    near_high = torch.stack([middle[:, 0] + 10, floor + 0.3, middle[:, 2] + 10], -1)
    parts = [
        _primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2),
        (TERRAIN, middle[:, None], torch.ones(worlds, 1, 3)),
    ]
    parts += _objects(dice, near_low, near_high, (5, 6, 6), (0.3, 1.3), 1.0)
    return _assemble(parts, dice, outdoor=True, waves=waves)


def _clear_path(layout: _Layout, path: Tensor) -> tuple[Tensor, Tensor]:
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


def _dress(layout: _Layout, centre: Tensor, half: Tensor, dice: Dice, pool: TexturePool) -> Scene:
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
        layout.shape, centre, half, layout.yaw, texture, density, tint, dice.uniform(worlds, count, 2, high=128.0), light,
        dice.uniform(worlds, low=0.35, high=0.75), torch.full((worlds,), layout.outdoor), layout.waves,
    )  # fmt: skip
