"""Attention of the family: rotary positions on integer grids, queries and keys that can be watched.

A pose token stands at (-1, -1), which is a real rotation by minus one unit.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.layers import Rotary, rotary_table, rotate
from scal3r_ros.networks.mem3r.architecture import ROPE_BASE

AttentionObserver = Callable[[Tensor, Tensor], None]
"""Is shown queries (B, heads, Q, D) and keys (B, heads, K, D) after their rotation."""


def image_positions(grid: tuple[int, int], pose_token: bool, device: torch.device) -> Tensor:
    """Positions (y, x) of the patches of a frame, row by row from (0, 0), (N, 2); with
    `pose_token` (-1, -1) stands in front."""
    y = torch.arange(grid[0], device=device)
    x = torch.arange(grid[1], device=device)
    patches = torch.cartesian_prod(y, x).reshape(-1, 2)
    return F.pad(patches, (0, 0, int(pose_token), 0), value=-1)


def state_positions(count: int, kind: str, device: torch.device) -> Tensor | None:
    """Positions (S, 2) of the state tokens, on a grid of even width (`2d`); None for `none`."""
    if kind == "none":
        return None
    index = torch.arange(count, device=device)
    if kind == "1d":
        return torch.stack((index, index), dim=-1)
    width = isqrt(count) + isqrt(count) % 2
    return torch.stack((index // width, index % width), dim=-1)


def table(positions: Tensor | None, head_dim: int) -> Rotary | None:
    """Rotary table of `positions` (..., 2) for heads of that size; None turns nothing."""
    return None if positions is None else rotary_table(positions, head_dim, ROPE_BASE)


def rotate_half(heads: Tensor, rotary: Rotary) -> Tensor:
    """As `rotate`, with float16 going in and coming out of a rotation computed in float32."""
    turned = rotate(heads.half().to(heads.dtype), rotary)
    return turned.half().to(heads.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention; `half_rope` rounds as the public encoder does."""

    def __init__(self, dim: int, num_heads: int, half_rope: bool = False):
        super().__init__()
        self.num_heads = num_heads
        self._turn = rotate_half if half_rope else rotate
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rotary: Rotary | None) -> Tensor:
        """`x`: (B, L, C)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = self._turn(q, rotary), self._turn(k, rotary)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of one stream to another."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.projq, self.projk, self.projv, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        rotary_x: Rotary | None,
        rotary_y: Rotary | None,
        observe: AttentionObserver | None = None,
    ) -> Tensor:
        """Queries from `x` (B, Q, C), keys and values from `y` (B, K, C)."""
        q, k, v = self._split(self.projq(x)), self._split(self.projk(y)), self._split(self.projv(y))
        q = q if rotary_x is None else rotate(q, rotary_x)
        k = k if rotary_y is None else rotate(k, rotary_y)
        if observe is not None:
            observe(q, k)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
