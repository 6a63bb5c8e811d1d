"""Camera motion: short hand-held, driving, flying, orbiting and turning clips, and long closed
tours.

Poses are camera-to-world with camera axes x right, y down, z forward; the world shares these axes,
so that gravity points to +y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scal3r_ros.train.worlds.dice import Dice


@dataclass(frozen=True)
class MotionRange:
    """How much a clip moves. Steps are per frame; a world's own factors are drawn from the ranges.

    translation: (low, high) metres per step before the factor of the scene's size. rotation: (low,
    high) degrees per step.
    """

    translation: tuple[float, float] = (0.06, 0.35)
    rotation: tuple[float, float] = (1.5, 9.0)


def rotation_from_vector(vector: Tensor) -> Tensor:
    """Rodrigues: rotation vectors (..., 3) in radians to matrices (..., 3, 3)."""
    angle = vector.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    x, y, z = (vector / angle).unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    sin, cos = torch.sin(angle)[..., None], torch.cos(angle)[..., None]
    return torch.eye(3, device=vector.device) + sin * k + (1 - cos) * (k @ k)


def poses(rotation: Tensor, position: Tensor) -> Tensor:
    """(..., 3, 3) rotations and (..., 3) positions as (..., 4, 4) camera-to-world transforms."""
    T = torch.zeros(*position.shape[:-1], 4, 4, device=position.device)
    T[..., :3, :3], T[..., :3, 3], T[..., 3, 3] = rotation, position, 1.0
    return T


def clips(worlds: int, frames: int, dice: Dice, motion: MotionRange) -> Tensor:
    """One short clip per world: (W, S, 4, 4), in the order of time, starting anywhere near the
    origin.

    Directions are uniform: nothing can be gained by guessing that cameras move forward.
    """
    style = dice.uniform(worlds)
    turning, orbiting = style < 0.1, (style > 0.1) & (style < 0.35)
    step = _log_uniform(dice, worlds, motion.translation) * torch.where(turning, 0.01, 1.0)
    angle = torch.deg2rad(_log_uniform(dice, worlds, motion.rotation))
    heading = dice.direction(worlds) * torch.tensor([1.0, 0.5, 1.0])
    axis = dice.normal(worlds, 3) * torch.tensor([0.45, 1.0, 0.2])
    heading, axis = (torch.nn.functional.normalize(x, dim=-1) for x in (heading, axis))
    start = _level_rotation(dice, worlds)
    velocity, spin = heading * step[:, None], axis * angle[:, None]
    spin = torch.where(orbiting[:, None], _orbit_spin(velocity, start, dice), spin)
    moving = ~dice.coin(0.1, worlds, frames)[..., None]
    speed = (1 + 0.35 * _smooth_noise(dice, worlds, frames)[..., :1]).clamp(min=0.0)
    sway = 0.35 * _smooth_noise(dice, worlds, frames) + 0.06 * dice.normal(worlds, frames, 3)
    wobble = 0.3 * _smooth_noise(dice, worlds, frames)
    position = torch.cumsum(moving * (velocity[:, None] * speed + step[:, None, None] * sway), 1)
    turn = torch.cumsum(moving * (spin[:, None] * speed + angle[:, None, None] * wobble), 1)
    rotation = start[:, None] @ rotation_from_vector(turn)
    return poses(rotation, position - position.mean(1, keepdim=True))


def _log_uniform(dice: Dice, worlds: int, bounds: tuple[float, float]) -> Tensor:
    return torch.exp(dice.uniform(worlds, low=math.log(bounds[0]), high=math.log(bounds[1])))


def _level_rotation(dice: Dice, worlds: int) -> Tensor:
    """Any yaw, pitch of some ten degrees (more for flying), little roll."""
    pitch = 0.17 * dice.normal(worlds) - 0.35 * dice.coin(0.2, worlds) * dice.uniform(worlds)
    zero = torch.zeros(worlds)
    yaw = rotation_from_vector(
        torch.stack([zero, dice.uniform(worlds, high=2 * math.pi), zero], -1)
    )
    tilt = rotation_from_vector(torch.stack([pitch, zero, zero], -1))
    roll = rotation_from_vector(torch.stack([zero, zero, 0.07 * dice.normal(worlds)], -1))
    return yaw @ tilt @ roll


def _orbit_spin(velocity: Tensor, rotation: Tensor, dice: Dice) -> Tensor:
    """Rotation per step (camera axes) that keeps a point ahead in view while the camera moves
    sideways."""
    distance = dice.uniform(len(velocity), 1, low=1.5, high=4.0)
    local = (rotation.transpose(-1, -2) @ velocity[..., None])[..., 0] / distance
    return torch.stack([local[:, 1], -local[:, 0], torch.zeros(len(local))], -1)


def _smooth_noise(dice: Dice, worlds: int, frames: int) -> Tensor:
    """(W, S, 3) noise that varies over a few frames, about unit deviation."""
    padded = dice.normal(worlds, 3, frames + 4)
    return torch.nn.functional.avg_pool1d(padded, 5, 1).transpose(1, 2) * math.sqrt(5.0)


def tour(curve: Tensor, frames: int, laps: float, gaze: str, dice: Dice) -> Tensor:
    """A long drive along a closed curve, (frames, 4, 4), with sway, gaze changes and the start
    passed again.

    curve: (N, 3) closed, evenly enough sampled positions. gaze: `ahead`, `left`, `right`, `back` or
    `inside` (towards the middle).
    """
    phase = torch.linspace(0, laps, frames) * len(curve)
    position = _along(curve, phase)
    tangent = torch.nn.functional.normalize(
        _along(curve, phase + 0.004 * len(curve)) - _along(curve, phase - 0.004 * len(curve)),
        dim=-1,
    )
    if gaze == "inside":
        tangent = torch.nn.functional.normalize(curve.mean(0) - position, dim=-1)
    turn = {
        "ahead": 0.0,
        "inside": 0.0,
        "left": -math.pi / 2,
        "right": math.pi / 2,
        "back": math.pi,
    }[gaze]
    yaw = torch.atan2(tangent[:, 0], tangent[:, 2]) + turn
    sway = torch.cumsum(_smooth_noise(dice, 1, frames)[0], 0)
    sway = sway - torch.linspace(0, 1, frames)[:, None] * sway[-1]
    yaw = yaw + 0.35 * torch.sin(torch.linspace(0, 2 * math.pi * 5, frames)) + 0.004 * sway[:, 0]
    pitch = 0.08 * torch.sin(torch.linspace(0, 2 * math.pi * 3, frames)) + 0.002 * sway[:, 1]
    zero = torch.zeros(frames)
    rotation = rotation_from_vector(torch.stack([zero, yaw, zero], -1)) @ rotation_from_vector(
        torch.stack([pitch, zero, zero], -1)
    )
    bob = torch.stack(
        [zero, 0.03 * torch.sin(torch.linspace(0, 2 * math.pi * 25, frames)), zero], -1
    )
    return poses(rotation, position + bob)


def _along(curve: Tensor, phase: Tensor) -> Tensor:
    """Positions at fractional indices of a closed curve."""
    low = torch.floor(phase)
    share = (phase - low)[:, None]
    index = low.long()
    return curve[index % len(curve)] * (1 - share) + curve[(index + 1) % len(curve)] * share


def rounded_rectangle(half_x: float, half_z: float, radius: float, samples: int = 720) -> Tensor:
    """Closed level curve (N, 3) at height 0: a rectangle with rounded corners, evenly sampled by
    length."""
    angle = torch.linspace(0, 2 * math.pi, 8 * samples + 1)[:-1]
    cos, sin = torch.cos(angle), torch.sin(angle)
    corner = torch.stack(
        [
            torch.sign(cos) * (half_x - radius),
            torch.zeros_like(cos),
            torch.sign(sin) * (half_z - radius),
        ],
        -1,
    )
    dense = corner + radius * torch.stack([cos, torch.zeros_like(cos), sin], -1)
    return _even(dense, samples)


def ellipse(half_x: float, half_z: float, wobble: float, dice: Dice, samples: int = 720) -> Tensor:
    """Closed curve (N, 3) about an ellipse whose radius and height vary by `wobble` (share)."""
    angle = torch.linspace(0, 2 * math.pi, 8 * samples + 1)[:-1]
    phase = dice.uniform(2, high=2 * math.pi)
    radius = 1 + wobble * torch.sin(3 * angle + phase[0])
    height = wobble * 0.5 * torch.sin(2 * angle + phase[1])
    return _even(
        torch.stack(
            [half_x * radius * torch.cos(angle), height, half_z * radius * torch.sin(angle)], -1
        ),
        samples,
    )


def _even(dense: Tensor, samples: int) -> Tensor:
    closed = torch.cat([dense, dense[:1]])
    length = torch.cat([torch.zeros(1), torch.cumsum((closed[1:] - closed[:-1]).norm(dim=-1), 0)])
    target = torch.linspace(0, float(length[-1]), samples + 1)[:-1]
    index = torch.searchsorted(length, target, right=True).clamp(max=len(dense)) - 1
    share = ((target - length[index]) / (length[index + 1] - length[index]).clamp(min=1e-9))[
        :, None
    ]
    return closed[index] * (1 - share) + closed[index + 1] * share
