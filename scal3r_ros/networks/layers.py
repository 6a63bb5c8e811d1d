"""Transformer parts that the networks share: rotary positions, attention, MLP, block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Rotary(NamedTuple):
    """Table of a 2-D rotary embedding for the P tokens of one frame, `(P, head_dim)` each."""

    cos: Tensor
    sin: Tensor
    """Already carries the sign of the rotation."""


def products_in(number_format: str, device: torch.device) -> AbstractContextManager[None]:
    """Compute matrix products in `bfloat16` or, whatever a caller has set, in `float32`.

    On the meta device, where only sizes are counted, there is nothing to choose.
    """
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(
        device.type,
        dtype=torch.bfloat16,
        enabled=number_format == "bfloat16",
        cache_enabled=False,  # weights are used once or a few times, a cache costs memory
    )


def grid_positions(grid: tuple[int, int], special: int, device: torch.device) -> Tensor:
    """Positions (y, x) of a frame's tokens, (special + gh * gw, 2): patches count from (1, 1),
    special tokens stay at (0, 0), where the rotation is none."""
    y = torch.arange(1, grid[0] + 1, device=device)
    x = torch.arange(1, grid[1] + 1, device=device)
    patches = torch.cartesian_prod(y, x).reshape(-1, 2)
    return F.pad(patches, (0, 0, special, 0))


def rotary_table(
    positions: Tensor, head_dim: int, base: float, angles: torch.dtype = torch.float32
) -> Rotary:
    """Table for `positions` (..., P, 2): the first half of a head turns with y, the second with x.

    Inside each half element i is paired with element i + head_dim / 4, and angle i is
    position / base^(2i / half). `angles` is the format to which angles, and the cosines and sines
    of them, are rounded; the table itself is float32.
    """
    half = head_dim // 2
    exponent = torch.arange(0, half, 2, device=positions.device, dtype=torch.float32) / half
    angle = positions[..., None].float() * (1.0 / base**exponent)  # (..., P, 2, half / 2)
    angle = angle.to(angles)
    cos, sin = angle.cos().float(), angle.sin().float()
    return Rotary(
        torch.stack((cos, cos), dim=-2).flatten(-3), torch.stack((-sin, sin), dim=-2).flatten(-3)
    )


def rotate(heads: Tensor, rotary: Rotary) -> Tensor:
    """Turn `heads` (..., S * P, head_dim) by a table of P tokens that repeats for every frame."""
    frames = heads.unflatten(-2, (-1, rotary.cos.shape[-2]))
    partner = frames.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)
    return (frames * rotary.cos + partner * rotary.sin).flatten(-3, -2)


class LayerScale(nn.Module):
    """Learned factor per channel on a residual branch."""

    def __init__(self, dim: int, init: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int, out: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head attention; queries and keys are normalised per head if `qk_norm_eps` is given, and
    rotated if there is a table."""

    def __init__(self, dim: int, num_heads: int, qk_norm_eps: float | None = None):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.q_norm, self.k_norm = (
            nn.Identity() if qk_norm_eps is None else nn.LayerNorm(dim // num_heads, qk_norm_eps)
            for _ in range(2)
        )

    def forward(
        self,
        x: Tensor,
        rotary: Rotary | None = None,
        observe: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """`x`: (N, L, C). Queries and keys (N, heads, L, head_dim) are shown to `observe`."""
        q, k, v = self.heads(x, rotary)
        if observe is not None:
            observe(q, k)
        return self.attend(q, k, v)

    def heads(self, x: Tensor, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens (N, L, C), (N, heads, L, head_dim) each."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if rotary is None:
            return q, k, v
        q = rotate(self.q_norm(q.float()), rotary).to(v.dtype)
        return q, rotate(self.k_norm(k.float()), rotary).to(v.dtype), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Answers (N, L, C) to queries; keys and values may be more than the queries."""
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block; `layer_scale` is the initial factor on both branches, None for no
    factors."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: int,
        layer_scale: float | None,
        eps: float,
        qk_norm_eps: float | None = None,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, qk_norm_eps)
        self.ls1 = _layer_scale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio * dim, dim)
        self.ls2 = _layer_scale(dim, layer_scale)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary | None = None,
        observe: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rotary, observe))
        return x + self.ls2(self.mlp(self.norm2(x)))


def _layer_scale(dim: int, init: float | None) -> nn.Module:
    return nn.Identity() if init is None else LayerScale(dim, init)
