"""Losses: attention as matching, whitened pose, confidence-weighted depth and points with
gradients.

Pose and depth losses alone stay on a plateau (the mean pose for every frame). Supervising one
attention head of the first global blocks to look at the true match breaks it; this adds no
parameter and changes nothing at inference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scal3r_ros.networks.scal3r.network import Prediction
from scal3r_ros.train.worlds.clips import (
    ClipBatch,
    Correspondences,
    camera_points,
    relative_to_reference,
)
from scal3r_ros.train.worlds.rendering import field_of_view

TRANSLATION_GAIN, QUATERNION_GAIN = 12.0, 35.0
"""Whitening: the spread of translations (in units of the scene) and quaternions is about 1/gain."""
IDENTITY = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
"""Encoding of no motion, without the field of view."""
_POSE_BETA, _FOV_BETA, _MATCH_BETA = 0.5, 0.05, 0.1
SURE, _DOUBT = 0.5, (0.02, 50.0)
"""Confidence is SURE / |error|, as far as that lies between these bounds above one."""
_CONFIDENCE_WEIGHT = 0.1
_LARGEST_RELATIVE = 1.0
"""Log error above which the relative error, which would grow as its exponential, pulls no more."""


@dataclass(frozen=True)
class LossWeights:
    """Weight of every part of the loss. iteration_decay: factor per earlier camera iteration."""

    matching: float = 1.0
    pose: float = 1.0
    field_of_view: float = 1.0
    depth: float = 0.5
    points: float = 0.5
    iteration_decay: float = 0.6


@dataclass(frozen=True)
class Targets:
    """Truth of W clips in network order, in units of the clip (or of its group of chunks).

    encoding: (W, S, 9) as the camera head's, quaternion with positive scalar. log_depth: (W, S, H,
    W'). solid: same, False where there is no depth. points: (W, S, H, W', 3) in the reference
    camera. scale: (W,) metres per unit.
    """

    encoding: Tensor
    log_depth: Tensor
    solid: Tensor
    points: Tensor
    scale: Tensor


def scene_scale(batch: ClipBatch) -> Tensor:
    """Geometric mean distance of all solid points from the reference camera, (W,) metres."""
    distance = _reference_points(batch).norm(dim=-1).clamp(min=1e-3)
    weight = batch.solid.float()
    total = (distance.log() * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1.0)
    return total.exp()


def make_targets(batch: ClipBatch, scale: Tensor) -> Targets:
    """Targets of clips whose first frame is the reference; scale: (W,) metres per unit."""
    relative = relative_to_reference(batch.T_world_camera)
    translation = relative[..., :3, 3] / scale[:, None, None]
    fov = field_of_view(batch.focal, batch.depth.shape[-2:])
    fov = fov[:, None].expand(-1, relative.shape[1], -1)
    unit = scale[:, None, None, None]
    return Targets(
        torch.cat([translation, quaternion(relative[..., :3, :3]), fov], -1),
        (batch.depth / unit).clamp(min=1e-4).log(),
        batch.solid,
        _reference_points(batch) / unit[..., None],
        scale,
    )


def _reference_points(batch: ClipBatch) -> Tensor:
    relative = relative_to_reference(batch.T_world_camera)
    local = camera_points(batch.depth, batch.focal) - relative[..., None, None, :3, 3]
    return torch.einsum("wsij,wshvi->wshvj", relative[..., :3, :3], local)


def quaternion(rotation: Tensor) -> Tensor:
    """Quaternions (x, y, z, w), w >= 0, of rotation matrices (..., 3, 3) with angles below pi."""
    m = rotation
    w = (1 + m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]).clamp(min=1e-8).sqrt() / 2
    x = (m[..., 2, 1] - m[..., 1, 2]) / (4 * w)
    y = (m[..., 0, 2] - m[..., 2, 0]) / (4 * w)
    z = (m[..., 1, 0] - m[..., 0, 1]) / (4 * w)
    return torch.stack([x, y, z, w], -1)


class AttentionWatch:
    """Collects queries and keys of one head of chosen global blocks; pass it as `observe`."""

    def __init__(self, layers: tuple[int, ...], head: int = 0):
        self.layers, self.head = layers, head
        self.seen: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in layers}

    def __call__(self, layer: int, q: Tensor, k: Tensor) -> None:
        if layer in self.seen:
            self.seen[layer].append((q[:, self.head].float(), k[:, self.head].float()))


@dataclass(frozen=True)
class Matching:
    """Matching loss and how good the matches are.

    error: mean distance in patches between the soft-max mean and the truth; same_place: that of
    answering every patch's own position.
    """

    loss: Tensor
    error: Tensor
    same_place: Tensor


def matching_loss(
    q: Tensor,
    k: Tensor,
    truth: Correspondences,
    grid: tuple[int, int],
    special: int,
    asked: Tensor | None = None,
) -> Matching:
    """Cross-entropy of one head's attention against the true matches of all ordered frame pairs,
    and Huber loss on the mean position. q, k: (W, S * P, D). asked: patches whose matches count,
    all if None."""
    frames = truth.position.shape[1]
    q, k = (x.unflatten(1, (frames, -1))[:, :, special:] for x in (q, k))
    rows = torch.arange(grid[0], device=q.device).repeat_interleave(grid[1]).float()
    columns = torch.arange(grid[1], device=q.device).repeat(grid[0]).float()
    places = torch.stack([rows, columns], -1)
    own, position, mask = places, truth.position, truth.visible
    if asked is not None:
        q, own = q[:, :, asked], places[asked]
        position, mask = position[:, :, :, asked], mask[:, :, :, asked]
    logits = torch.einsum("wapd,wbqd->wabpq", q / q.shape[-1] ** 0.5, k)
    logs = logits.log_softmax(-1)
    limit = torch.tensor([grid[0] - 1.0, grid[1] - 1.0], device=q.device)
    goal = torch.minimum(position.clamp(min=0), limit)
    mask = mask.float()
    count = mask.sum().clamp(min=1.0)
    entropy = -((_bilinear(logs, goal, grid)) * mask).sum() / count
    mean = logs.exp() @ places
    huber = F.smooth_l1_loss(mean, goal, beta=_MATCH_BETA, reduction="none").sum(-1)
    error = ((mean - goal).norm(dim=-1) * mask).sum() / count
    same = ((own - goal).norm(dim=-1) * mask).sum() / count
    return Matching(entropy + (huber * mask).sum() / count, error.detach(), same.detach())


def _bilinear(values: Tensor, goal: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values (..., P) of all patches of a grid at the positions `goal` (..., 2) inside it."""
    height, width = grid
    top = goal[..., 0].floor().clamp(max=max(height - 2, 0))
    left = goal[..., 1].floor().clamp(max=max(width - 2, 0))
    down, right = goal[..., 0] - top, goal[..., 1] - left
    first = (top * width + left).long()
    below, beside = (width if height > 1 else 0), (1 if width > 1 else 0)
    corners = torch.stack([first, first + beside, first + below, first + below + beside], -1)
    weights = torch.stack(
        [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right], -1
    )
    return (values.gather(-1, corners) * weights).sum(-1)


def pose_loss(found: Tensor, goal: Tensor) -> Tensor:
    """Huber loss of whitened translations and quaternions (..., 7)."""
    gain = found.new_tensor([TRANSLATION_GAIN] * 3 + [QUATERNION_GAIN] * 4)
    return F.smooth_l1_loss(found * gain, goal * gain, beta=_POSE_BETA)


def camera_loss(cameras: Tensor, targets: Targets, weights: LossWeights) -> tuple[Tensor, Tensor]:
    """Whitened pose loss and field-of-view loss over all iterations; cameras: (iterations, W, S,
    9)."""
    pose, fov, total = cameras.new_zeros(()), cameras.new_zeros(()), 0.0
    for i, encoding in enumerate(cameras):
        share = weights.iteration_decay ** (len(cameras) - 1 - i)
        goal = targets.encoding
        pose = pose + share * pose_loss(encoding[..., :7], goal[..., :7])
        fov = fov + share * F.smooth_l1_loss(encoding[..., 7:], goal[..., 7:], beta=_FOV_BETA)
        total += share
    return pose / total, fov / total


def depth_loss(depth: Tensor, confidence: Tensor, targets: Targets) -> Tensor:
    """Log and relative error of every solid pixel, image gradients of the log error, and the
    confidence.

    Confidence does not weigh the depth: where it does, easy pixels are refined and the others given
    up, and it falls to its smallest value everywhere as long as errors are large.
    """
    error = depth.clamp(min=1e-4).log() - targets.log_depth
    solid = targets.solid.float()
    size = error.abs()
    relative = torch.expm1(error.clamp(max=_LARGEST_RELATIVE)).abs()
    told = _CONFIDENCE_WEIGHT * confidence_loss(confidence, size, targets.solid)
    return _masked_mean((size + relative) / 2, solid) + _gradient_loss(error, solid) + told


def confidence_loss(confidence: Tensor, size: Tensor, solid: Tensor) -> Tensor:
    """Confidences against those that suit errors of some size; none in the sky.

    Compared is the logarithm of what is above one, the head's own output: there, a confidence that
    has fallen to one still feels its gradient.
    """
    lowest, highest = _DOUBT
    goal = (SURE / size.detach().clamp(min=1e-4) - 1).clamp(lowest, highest)
    goal = goal.where(solid, goal.new_tensor(lowest))
    return F.smooth_l1_loss((confidence - 1).clamp(min=1e-7).log(), goal.log())


def points_loss(points: Tensor, confidence: Tensor, targets: Targets) -> Tensor:
    """The same for point maps (W, S, H, W', 3) in the reference camera."""
    solid = targets.solid.float()
    reach = targets.points.norm(dim=-1, keepdim=True).clamp(min=0.3)
    error = (points - targets.points) / reach
    size = error.norm(dim=-1)
    told = _CONFIDENCE_WEIGHT * confidence_loss(confidence, size, targets.solid)
    gradient = sum(_gradient_loss(error[..., i], solid) for i in range(3))
    return _masked_mean(size, solid) + gradient + told


def _gradient_loss(error: Tensor, solid: Tensor) -> Tensor:
    vertical = _masked_mean(error.diff(dim=-2).abs(), solid[..., 1:, :] * solid[..., :-1, :])
    horizontal = _masked_mean(error.diff(dim=-1).abs(), solid[..., 1:] * solid[..., :-1])
    return vertical + horizontal


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


@dataclass(frozen=True)
class LossParts:
    """Total and parts of one prediction's loss, and the matching errors in patches."""

    total: Tensor
    parts: dict[str, Tensor]


def prediction_loss(prediction: Prediction, targets: Targets, weights: LossWeights) -> LossParts:
    """Weighted sum of the pose, field-of-view, depth and (if predicted) point losses."""
    pose, fov = camera_loss(prediction.cameras, targets, weights)
    depth = depth_loss(prediction.depth, prediction.depth_confidence, targets)
    total = weights.pose * pose + weights.field_of_view * fov + weights.depth * depth
    parts = {"pose": pose.detach(), "fov": fov.detach(), "depth": depth.detach()}
    if prediction.points is not None and prediction.points_confidence is not None:
        points = points_loss(prediction.points, prediction.points_confidence, targets)
        total = total + weights.points * points
        parts["points"] = points.detach()
    return LossParts(total, parts)
