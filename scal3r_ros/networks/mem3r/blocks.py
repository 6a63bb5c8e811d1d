"""Three transformer blocks: of the encoder, of the decoders, and one modulated by the pose."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scal3r_ros.networks.layers import Mlp, Rotary
from scal3r_ros.networks.mem3r.architecture import EPS, MLP_RATIO
from scal3r_ros.networks.mem3r.attention import AttentionObserver, CrossAttention, SelfAttention


class EncoderBlock(nn.Module):
    """Self-attention and MLP."""

    def __init__(self, dim: int, num_heads: int, half_rope: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = SelfAttention(dim, num_heads, half_rope)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, MLP_RATIO * dim, dim)

    def forward(self, x: Tensor, rotary: Rotary | None) -> Tensor:
        x = x + self.attn(self.norm1(x), rotary)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Self-attention, attention to another stream, MLP."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.norm_y = nn.LayerNorm(dim, eps=EPS)
        self.cross_attn = CrossAttention(dim, num_heads)
        self.norm3 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, MLP_RATIO * dim, dim)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        rotary_x: Rotary | None = None,
        rotary_y: Rotary | None = None,
        observe: AttentionObserver | None = None,
    ) -> Tensor:
        """`x` (B, L, C) after one step that reads `y` (B, K, C)."""
        x = x + self.attn(self.norm1(x), rotary_x)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(y), rotary_x, rotary_y, observe)
        return x + self.mlp(self.norm3(x))


class ModulatedNorm(nn.Module):
    """Layer norm whose shift and scale depend on a token."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """`x`: (B, L, C); `token`: (B, C)."""
        shift, scale = self.mlp(token)[:, None].chunk(2, dim=-1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class ModulatedBlock(nn.Module):
    """Encoder block whose norms the pose token sets."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.norm1 = ModulatedNorm(dim)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = ModulatedNorm(dim)
        self.mlp = Mlp(dim, MLP_RATIO * dim, dim)

    def forward(self, x: Tensor, token: Tensor, rotary: Rotary | None) -> Tensor:
        x = x + self.attn(self.norm1(x, token), rotary)
        return x + self.mlp(self.norm2(x, token))
