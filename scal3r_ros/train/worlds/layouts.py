"""Where things stand in a procedural world: rooms, corridors, streets, clutter and terrain.

A layout is built around a camera path that is given first, so that nothing has to be rejected.
World axes follow the camera's: x right, y down, z forward, metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scal3r_ros.train.worlds.dice import Dice

BOX, SPHERE, CYLINDER, ENCLOSURE, TERRAIN = range(5)


@dataclass(frozen=True)
class Layout:
    """Geometry before it is cleared from the path and dressed. `facade`: (N,) bool, primitives with
    windows."""

    shape: tuple[int, ...]
    centre: Tensor
    half: Tensor
    yaw: Tensor
    facade: Tensor
    outdoor: bool
    waves: Tensor


def primitive(shape: int, centre: Tensor, half: Tensor) -> tuple[int, Tensor, Tensor]:
    return shape, centre, half


def assemble(
    parts: list,
    dice: Dice,
    outdoor: bool,
    facades: int = 0,
    aligned_first: int = 0,
    waves: Tensor | None = None,
) -> Layout:
    """Concatenate (shape, centre (W, n, 3), half (W, n, 3)) groups; the `facades` boxes after the
    enclosure have windows."""
    shape = tuple(s for s, c, _ in parts for _ in range(c.shape[1]))
    centre, half = torch.cat([c for _, c, _ in parts], 1), torch.cat([h for _, _, h in parts], 1)
    worlds, count = centre.shape[:2]
    yaw = dice.uniform(worlds, count, low=-math.pi, high=math.pi)
    aligned = dice.coin(0.5, worlds, count) | torch.tensor(
        [i <= aligned_first for i in range(count)]
    )
    yaw = torch.where(aligned, torch.zeros(()), yaw)
    facade = torch.zeros(count, dtype=torch.bool)
    facade[1 : 1 + facades] = True
    yaw[:, 0] = 0.0
    yaw[:, [s == TERRAIN for s in shape]] = 0.0
    yaw[:, facade] = yaw[:, facade] * 0.03
    return Layout(
        shape,
        centre,
        half,
        yaw,
        facade,
        outdoor,
        torch.zeros(worlds, 4, 4) if waves is None else waves,
    )


def bounds(path: Tensor) -> tuple[Tensor, Tensor]:
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


def objects(
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


def room(path: Tensor, dice: Dice) -> Layout:
    low, high = bounds(path)
    worlds = len(low)
    side = torch.exp(dice.uniform(worlds, 2, 2, low=math.log(1.0), high=math.log(5.0)))
    low = low - torch.stack(
        [side[:, 0, 0], dice.uniform(worlds, low=0.5, high=1.6), side[:, 0, 1]], -1
    )
    high = high + torch.stack(
        [side[:, 1, 0], dice.uniform(worlds, low=0.5, high=1.7), side[:, 1, 1]], -1
    )
    parts = [primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2)]
    parts += objects(dice, low, high, (12, 3, 3), (0.15, 0.9), 0.65)
    return assemble(parts, dice, outdoor=False)


def corridor(path: Tensor, dice: Dice) -> Layout:
    low, high = bounds(path)
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
    parts = [primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2)]
    pillars = objects(dice, low, high, (10, 1, 3), (0.15, 0.6), 0.7)
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
    return assemble([*parts, (BOX, place, doors), *pillars], dice, outdoor=False)


def ground(
    path: Tensor, dice: Dice, reach: float, height: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Enclosure of an outdoor world: ground `height` metres below the lowest camera, sky `reach`
    metres away."""
    low, high = bounds(path)
    floor = high[:, 1] + dice.uniform(len(low), low=height[0], high=height[1])
    return (
        torch.stack([low[:, 0] - reach, low[:, 1] - reach, low[:, 2] - reach], -1),
        torch.stack([high[:, 0] + reach, floor, high[:, 2] + reach], -1),
    )


def street(path: Tensor, dice: Dice) -> Layout:
    low, high = ground(path, dice, 80.0, (0.9, 2.5))
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
        primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2),
        (BOX, place, half),
    ]
    parts += objects(dice, near_low, near_high, (6, 2, 5), (0.25, 1.1), 0.9)
    return assemble(parts, dice, outdoor=True, facades=count)


def clutter(path: Tensor, dice: Dice) -> Layout:
    low, high = bounds(path)
    worlds = len(low)
    low = low - dice.uniform(worlds, 3, low=1.0, high=4.0)
    high = high + dice.uniform(worlds, 3, low=1.0, high=4.0)
    parts = [primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2)]
    parts += objects(dice, low, high, (15, 5, 4), (0.12, 0.8), 0.3)
    return assemble(parts, dice, outdoor=False)


def terrain(path: Tensor, dice: Dice) -> Layout:
    low, high = ground(path, dice, 60.0, (1.0, 2.5))
    worlds, floor = len(low), high[:, 1]
    length = torch.tensor([25.0, 12.0, 6.0, 3.0]) * dice.uniform(worlds, 4, low=0.7, high=1.4)
    heading = dice.uniform(worlds, 4, high=2 * math.pi)
    amplitude = length * dice.uniform(worlds, 4, low=0.02, high=0.09)
    amplitude = (
        amplitude
        * (0.55 * (floor - path[..., 1].amax(1)) / amplitude.sum(1)).clamp(max=1.0)[:, None]
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
        primitive(ENCLOSURE, (low + high)[:, None] / 2, (high - low)[:, None] / 2),
        (TERRAIN, middle[:, None], torch.ones(worlds, 1, 3)),
    ]
    parts += objects(dice, near_low, near_high, (5, 6, 6), (0.3, 1.3), 1.0)
    return assemble(parts, dice, outdoor=True, waves=waves)


LAYOUTS = {
    "room": room,
    "corridor": corridor,
    "street": street,
    "clutter": clutter,
    "terrain": terrain,
}
"""By kind of world: a function of the path (W, S, 3) and the dice."""
