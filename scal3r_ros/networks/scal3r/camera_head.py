"""Camera head: pose and field of view of every frame, refined in a few iterations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.layers import Block, Mlp
from scal3r_ros.networks.scal3r.architecture import Architecture

_EPS = 1e-5
_MODULATION_EPS = 1e-6
_ENCODING = 9


class CameraHead(nn.Module):
    """Camera tokens (B, S, 2C) to encodings [tx ty tz | qx qy qz qw | fov_h fov_w].

    The translation and quaternion (scalar last, not normalised) are world to camera; fov_h goes
    with the image height; radians.
    """

    def __init__(self, a: Architecture):
        super().__init__()
        dim = 2 * a.embed_dim
        self.iterations = a.camera_iterations
        self.trunk = nn.Sequential(
            *(
                Block(dim, a.camera_num_heads, a.mlp_ratio, a.camera_layer_scale, _EPS)
                for _ in range(a.camera_trunk_depth)
            )
        )
        self.token_norm = nn.LayerNorm(dim, eps=_EPS)
        self.trunk_norm = nn.LayerNorm(dim, eps=_EPS)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, _ENCODING))
        self.embed_pose = nn.Linear(_ENCODING, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.pose_branch = Mlp(dim, dim // 2, _ENCODING)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encodings after every iteration, (iterations, B, S, 9)."""
        x = self.token_norm(tokens)
        normed = F.layer_norm(x, x.shape[-1:], eps=_MODULATION_EPS)
        known = self.empty_pose_tokens.expand(*tokens.shape[:2], -1)
        encoding: Tensor | None = None
        outputs = []
        for _ in range(self.iterations):
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(known)).chunk(3, dim=-1)
            y = self.trunk(x + gate * (normed * (1 + scale) + shift))
            step = self.pose_branch(self.trunk_norm(y))
            encoding = step if encoding is None else encoding + step
            outputs.append(torch.cat((encoding[..., :7], encoding[..., 7:].relu()), dim=-1))
            known = encoding
        return torch.stack(outputs)
