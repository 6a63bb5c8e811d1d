"""From decoded tokens to local points, confidence and camera poses, frame by frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.layers import Block, Rotary
from scal3r_ros.networks.loger.architecture import Architecture
from scal3r_ros.networks.loger.window_attention import BLOCK_EPS

_ROW_EPS = 1e-12


class HeadDecoder(nn.Module):
    """A few blocks of attention inside a frame between the decoder and one head; all tokens (N, P,
    2C) take part, specials included."""

    def __init__(self, a: Architecture, out: int):
        super().__init__()
        dim = a.head_embed_dim
        self.projects = nn.Linear(2 * a.embed_dim, dim)
        self.blocks = nn.ModuleList(
            Block(dim, a.head_num_heads, a.mlp_ratio, None, BLOCK_EPS) for _ in range(a.head_depth)
        )
        self.linear_out = nn.Linear(dim, out)

    def forward(self, hidden: Tensor, rotary: Rotary) -> Tensor:
        x = self.projects(hidden)
        for block in self.blocks:
            x = block(x, rotary)
        return self.linear_out(x)


class PatchHead(nn.Module):
    """One linear layer from a patch token to `channels` values of each of its pixels."""

    def __init__(self, dim: int, channels: int, patch_size: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(dim, channels * patch_size**2)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patch tokens (N, gh * gw, C), row by row, to (N, H, W, channels)."""
        x = self.proj(tokens).transpose(1, 2).unflatten(2, grid)
        return F.pixel_shuffle(x, self.patch_size).permute(0, 2, 3, 1)


class CameraHead(nn.Module):
    """Patch tokens (N, gh * gw, C) of a frame to its pose."""

    def __init__(self, dim: int):
        super().__init__()
        self.res_conv = nn.ModuleList(_ResidualMlp(dim) for _ in range(2))
        self.more_mlps = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU()
        )
        self.fc_t = nn.Linear(dim, 3)
        self.fc_rot = nn.Linear(dim, 9)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, 4, 4) rigid, camera to the window's world."""
        for block in self.res_conv:
            tokens = block(tokens)
        x = self.more_mlps(tokens.mean(dim=1))
        pose = torch.zeros(len(x), 4, 4, dtype=x.dtype, device=x.device)
        pose[:, 3, 3] = 1
        pose[:, :3, :3] = nearest_rotation(self.fc_rot(x))
        pose[:, :3, 3] = self.fc_t(x)
        return pose


class _ResidualMlp(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.res_conv1 = nn.Linear(dim, dim)
        self.res_conv2 = nn.Linear(dim, dim)
        self.res_conv3 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.res_conv2(self.res_conv1(x).relu()).relu()
        return x + self.res_conv3(y).relu()


def local_points(raw: Tensor) -> Tensor:
    """Raw (N, H, W, 3) to points in the camera frame (x z, y z, z) with z = exp of the third."""
    z = raw[..., 2:].exp()
    return torch.cat((raw[..., :2] * z, z), dim=-1)


def nearest_rotation(nine: Tensor) -> Tensor:
    """The rotation (N, 3, 3) nearest to a matrix given row by row (N, 9), once its rows have length
    one; not finite where that is not."""
    rows = nine.unflatten(-1, (3, 3)).double()
    rows = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min(_ROW_EPS)
    known = rows.isfinite().all(-1).all(-1)[:, None, None]
    u, _, vh = torch.linalg.svd(rows.where(known, torch.eye(3).to(rows)))
    sign = torch.linalg.det(u @ vh)[:, None]
    last = torch.cat((u[..., :2], u[..., 2:] * sign[..., None]), dim=-1)
    return (last @ vh).where(known, torch.nan).to(nine.dtype)


def world_points(poses: Tensor, points: Tensor) -> Tensor:
    """Points (N, H, W, 3) of the cameras in the frame that `poses` (N, 4, 4) lead to."""
    turned = torch.einsum("nij,nhwj->nhwi", poses[:, :3, :3], points)
    return turned + poses[:, None, None, :3, 3]
