"""Training objective of the CUT3R family: poses, and points weighted by their confidence.

Points and translations are compared after dividing both sides by the mean distance of their points;
samples in metres share the factor of the ground truth (specification of the family, section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MIN_WEIGHT = _MIN_SCALE = 1e-3
_SKY_ERROR = 2.0
_CONFIDENCE = 0.2
"""Reward of confidence, on its logarithm."""


@dataclass(frozen=True)
class ViewTarget:
    """Ground truth of one view of B samples."""

    points_self: Tensor
    """(B, H, W, 3) in the camera's frame."""
    points_world: Tensor
    """(B, H, W, 3) in the frame of the first camera."""
    pose: Tensor
    """(B, 7): translation and quaternion (w, x, y, z), w >= 0, camera to first camera."""
    valid: Tensor
    """(B, H, W) bool."""
    sky: Tensor
    """(B, H, W) bool: pixels without geometry, whose confidence is to be low."""


@dataclass(frozen=True)
class ViewPrediction:
    """What a network said about the same view."""

    points_self: Tensor
    confidence_self: Tensor
    points_world: Tensor
    confidence_world: Tensor
    pose: Tensor


@dataclass(frozen=True)
class Objective:
    """Terms of the loss."""

    points_self: tuple[Tensor, ...]
    """Confidence term of every view."""
    points_world: tuple[Tensor, ...]
    pose: Tensor

    @property
    def total(self) -> Tensor:
        terms = torch.stack((*self.points_self, *self.points_world))
        return 2 * terms.mean() + self.pose


def view_target(
    T_world_camera: Tensor, T_world_first: Tensor, points: Tensor, valid: Tensor, sky: Tensor
) -> ViewTarget:
    """Targets of a view from poses (B, 4, 4) and world points (B, H, W, 3)."""
    relative = torch.linalg.solve(T_world_first, T_world_camera)
    pose = torch.cat((relative[:, :3, 3], _quaternion(relative[:, :3, :3])), dim=-1)
    own, first = (_into(T, points) for T in (T_world_camera, T_world_first))
    return ViewTarget(own, first, pose, valid, sky)


def objective(
    targets: Sequence[ViewTarget], predictions: Sequence[ViewPrediction], metric: Tensor
) -> Objective:
    """Of a clip; `metric` (B,) bool says which samples are in metres."""
    weights = [_weights(t, p) for t, p in zip(targets, predictions)]
    scale = _scale([(t.points_self, t.points_world) for t in targets], weights)
    own = _scale([(p.points_self, p.points_world) for p in predictions], weights)
    own = torch.where(metric, scale, own)
    terms = [_point_terms(t, p, scale, own) for t, p in zip(targets, predictions)]
    pose = _pose_term(targets, predictions, scale, own)
    return Objective(tuple(a for a, _ in terms), tuple(b for _, b in terms), pose)


def _weights(target: ViewTarget, prediction: ViewPrediction) -> tuple[Tensor, Tensor]:
    logs = prediction.confidence_self.log(), prediction.confidence_world.log()
    own, world = (log.detach().clamp(min=_MIN_WEIGHT) * target.valid for log in logs)
    return own, world


def _scale(
    clouds: Sequence[tuple[Tensor, Tensor]], weights: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """Weighted mean distance of all points of a sample, (B,)."""
    total = weight = torch.zeros(())
    for pair, shares in zip(clouds, weights):
        for points, share in zip(pair, shares):
            distance = points.norm(dim=-1)
            # Where nothing is known a distance may be anything, infinity included.
            distance = torch.where(share > 0, distance, 0)
            total = total + (share * distance).sum((1, 2))
            weight = weight + share.sum((1, 2))
    return (total / (weight + 1e-8)).clamp(min=_MIN_SCALE)


def _point_terms(
    target: ViewTarget, prediction: ViewPrediction, scale: Tensor, own: Tensor
) -> tuple[Tensor, Tensor]:
    def term(points: Tensor, confidence: Tensor, wanted: Tensor) -> Tensor:
        difference = points / own[:, None, None, None] - wanted / scale[:, None, None, None]
        difference = torch.where(target.valid[..., None], difference, 0)
        error = torch.where(target.valid, difference.norm(dim=-1), _SKY_ERROR)
        used = target.valid | target.sky
        return (error * confidence - _CONFIDENCE * confidence.log())[used].mean()

    return (
        term(prediction.points_self, prediction.confidence_self, target.points_self),
        term(prediction.points_world, prediction.confidence_world, target.points_world),
    )


def _pose_term(
    targets: Sequence[ViewTarget],
    predictions: Sequence[ViewPrediction],
    scale: Tensor,
    own: Tensor,
) -> Tensor:
    usable = (scale > _MIN_SCALE) & (own > _MIN_SCALE)
    shift, turn = [], []
    for target, prediction in zip(targets, predictions):
        moved = prediction.pose[:, :3] / own[:, None] - target.pose[:, :3] / scale[:, None]
        shift.append(moved.norm(dim=-1)[usable])
        turn.append((prediction.pose[:, 3:] - target.pose[:, 3:]).norm(dim=-1)[usable])
    return torch.stack(shift).mean() + torch.stack(turn).mean()


def _into(T_world_camera: Tensor, points: Tensor) -> Tensor:
    """World points (B, H, W, 3) in a camera's frame."""
    rotation, centre = T_world_camera[:, :3, :3], T_world_camera[:, :3, 3]
    return torch.einsum("bhwi,bij->bhwj", points - centre[:, None, None], rotation)


def _quaternion(rotation: Tensor) -> Tensor:
    """(w, x, y, z) with w >= 0 of rotations (B, 3, 3), by the largest of its four squares."""
    m = rotation
    trace = m.diagonal(dim1=-2, dim2=-1)
    squares = torch.stack(
        (
            1 + trace.sum(-1),
            1 + trace[:, 0] - trace[:, 1] - trace[:, 2],
            1 - trace[:, 0] + trace[:, 1] - trace[:, 2],
            1 - trace[:, 0] - trace[:, 1] + trace[:, 2],
        ),
        dim=-1,
    )
    wx, wy, wz = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xy, xz, yz = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    products = torch.stack(
        (
            torch.stack((squares[:, 0], wx, wy, wz), dim=-1),
            torch.stack((wx, squares[:, 1], xy, xz), dim=-1),
            torch.stack((wy, xy, squares[:, 2], yz), dim=-1),
            torch.stack((wz, xz, yz, squares[:, 3]), dim=-1),
        ),
        dim=1,
    )
    best = squares.argmax(-1)
    row = products[torch.arange(len(m)), best]
    row = row / row.norm(dim=-1, keepdim=True)
    return torch.where(row[:, :1] < 0, -row, row)
