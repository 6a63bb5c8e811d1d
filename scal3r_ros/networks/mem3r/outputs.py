"""From the raw numbers of the heads to poses, points, confidence and a focal length."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_FOCAL_ROUNDS = 10


def pose_encoding(raw: Tensor) -> Tensor:
    """Raw pose (..., 7) to translation and quaternion (w, x, y, z) with w >= 0, camera to block."""
    shift, turn = raw[..., :3], F.normalize(raw[..., 3:], dim=-1, eps=1e-12)
    turn = torch.where(turn[..., :1] < 0, -turn, turn)
    return torch.cat((_grown(shift), turn), dim=-1)


def pose_matrix(encoding: Tensor) -> Tensor:
    """T_block_camera (..., 4, 4) of an encoding (..., 7)."""
    w, x, y, z = F.normalize(encoding[..., 3:], dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    pose = torch.zeros(*encoding.shape[:-1], 4, 4, dtype=encoding.dtype, device=encoding.device)
    pose[..., :3, :3] = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    pose[..., :3, 3] = encoding[..., :3]
    pose[..., 3, 3] = 1
    return pose


def points_and_confidence(raw: Tensor, forward_only: bool = False) -> tuple[Tensor, Tensor]:
    """Raw maps (B, 4, H, W) to points (B, H, W, 3) and confidence (B, H, W), above 1.

    `forward_only` mirrors points to z >= 0, as the linear head does with the camera's own map.
    """
    value = raw[:, :3].permute(0, 2, 3, 1)
    if forward_only:
        value = value * value[..., 2:].sign()
    return _grown(value), 1 + raw[:, 3].exp()


def colour(raw: Tensor) -> Tensor:
    """Raw maps (B, 3, H, W) to colours (B, H, W, 3) between -1 and 1."""
    return 2 * (raw.sigmoid() * (1 - 2e-6) + 1e-6).permute(0, 2, 3, 1) - 1


def focal_length(points: Tensor) -> Tensor:
    """Focal length in pixels of camera points (B, H, W, 3), (B,), by Weiszfeld's iteration: the
    principal point is the middle, and the distances to the pixels are summed unsquared."""
    height, width = points.shape[1:3]
    rows = torch.arange(height, device=points.device, dtype=points.dtype) - height // 2
    columns = torch.arange(width, device=points.device, dtype=points.dtype) - width // 2
    offset = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1)
    ratio = (points[..., :2] / points[..., 2:]).flatten(1, 2)
    ratio = torch.where(ratio.isfinite(), ratio, 0)
    along, square = (ratio * offset).sum(-1), ratio.square().sum(-1)
    focal = along.mean(-1) / square.mean(-1)
    for _ in range(_FOCAL_ROUNDS):
        distance = (offset - focal[:, None, None] * ratio).norm(dim=-1)
        weight = 1 / distance.clamp(min=1e-8)
        focal = (weight * along).mean(-1) / (weight * square).mean(-1)
    return focal


def _grown(value: Tensor) -> Tensor:
    """Vectors whose length n becomes exp(n) - 1."""
    length = value.norm(dim=-1, keepdim=True)
    return value / length.clamp(min=1e-8) * length.expm1()
