"""Adaptive memory unit of Scal3R: projections around fast weights, and the order in which they are
used.

Update, then apply: gradients start from the initial fast weights, one process and many differ only
in what happens between `gradient` and `update`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.fast_weights import FastWeights, apply_weights, gradient, update
from scal3r_ros.networks.layers import Rotary, rotate
from scal3r_ros.networks.scal3r.architecture import Architecture

_QK_EPS = torch.finfo(torch.float32).eps
_OUT_EPS = 1e-5
_MODULATION_EPS = 1e-6


class MemoryUnit(nn.Module):
    """Projections around the fast weights of one layer; keys, rates and queries come from patch
    tokens, special tokens take no part.

    Methods take tokens (B, S, P, C) and the rotary table of one frame's patches (P - special rows).
    """

    def __init__(self, a: Architecture):
        super().__init__()
        dim, self.heads, self.special = a.embed_dim, a.ttt_num_heads, a.special_tokens
        self.steps = a.muon_steps
        width = dim // self.heads
        hidden = width * a.ttt_inter_multi
        self.w0 = nn.Parameter(torch.randn(self.heads, width, hidden) / math.sqrt(width))
        self.w1 = nn.Parameter(torch.randn(self.heads, hidden, width) / math.sqrt(hidden))
        self.w2 = nn.Parameter(torch.randn(self.heads, width, hidden) / math.sqrt(width))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.RMSNorm(width, eps=_QK_EPS)
        self.k_norm = nn.RMSNorm(width, eps=_QK_EPS)
        self.lrs = nn.Linear(dim, 3 * self.heads)
        self.o_norm = nn.RMSNorm(width, eps=_OUT_EPS)
        self.proj = nn.Linear(dim, 3 * dim)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)
        nn.init.constant_(self.proj.bias[2 * dim :], 0.1)
        self.rate_offset = a.ttt_base_lr + math.log(-math.expm1(-a.ttt_base_lr))

    def initial(self, batch: int = 1) -> FastWeights:
        """The trained fast weights, from which every gradient and update starts."""
        return FastWeights(
            *(w.float().expand(batch, *w.shape).flatten(0, 1) for w in (self.w0, self.w1, self.w2))
        )

    def zero_gradient(self) -> FastWeights:
        """What a process without a chunk contributes."""
        return FastWeights(*(torch.zeros_like(w, dtype=torch.float32) for w in self.initial()))

    def gradient(self, tokens: Tensor, rotary: Rotary, token_slice: int | None) -> FastWeights:
        """Raw gradient of a chunk at the initial fast weights, summed over its patch tokens."""
        weights = self.initial(len(tokens))
        total: FastWeights | None = None
        for x, table, _ in self._slices(tokens, rotary, token_slice):
            part = gradient(weights, *self.keys_values_rates(x, table))
            total = part if total is None else total + part
        if total is None:
            raise ValueError("a chunk without patch tokens has no gradient")
        return total

    def update(self, g: FastWeights, dtype: torch.dtype) -> FastWeights:
        """Fast weights adapted to a gradient sum."""
        return update(self.initial(len(g.w0) // self.heads), g, self.steps, dtype)

    def residual(
        self, tokens: Tensor, weights: FastWeights, rotary: Rotary, token_slice: int | None
    ) -> Tensor:
        """Tokens with the memory's answer added to the patches."""
        out = tokens.flatten(1, 2).clone()
        for x, table, index in self._slices(tokens, rotary, token_slice):
            answer = apply_weights(weights, self.queries(x, table))
            out.index_add_(1, index, self.modulated(answer))
        return out.view_as(tokens)

    def keys_values_rates(self, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Patch tokens (B, L, C) to keys and values (B * heads, L, d) and rates (B * heads, L,
        3)."""
        dim = x.shape[-1]
        k, v = F.linear(x, self.qkv.weight[dim:], self.qkv.bias[dim:]).chunk(2, dim=-1)
        k = rotate(self.k_norm(self._split(k)), rotary)
        rates = F.softplus(self.lrs(x) + self.rate_offset)
        rates = rates.unflatten(-1, (3, self.heads)).permute(0, 3, 1, 2).flatten(0, 1)
        return k, self._split(v), rates

    def queries(self, x: Tensor, rotary: Rotary) -> Tensor:
        """Patch tokens (B, L, C) to queries (B * heads, L, d)."""
        dim = x.shape[-1]
        q = F.linear(x, self.qkv.weight[:dim], self.qkv.bias[:dim])
        return rotate(self.q_norm(self._split(q)), rotary)

    def modulated(self, answer: Tensor) -> Tensor:
        """Memory answers (B * heads, L, d) to the residual (B, L, C)."""
        merged = self.o_norm(answer).unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)
        shift, scale, gate = self.proj(merged).chunk(3, dim=-1)
        normed = F.layer_norm(merged, merged.shape[-1:], eps=_MODULATION_EPS)
        return gate * (normed * (1 + scale) + shift)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1)

    def _slices(
        self, tokens: Tensor, rotary: Rotary, token_slice: int | None
    ) -> Iterator[tuple[Tensor, Rotary, Tensor]]:
        """Runs of at most `token_slice` patch tokens: (B, l, C) float32, their rotary rows, and
        their places among all S * P tokens."""
        _, frames, per_frame, _ = tokens.shape
        patches = per_frame - self.special
        flat, total = tokens.flatten(1, 2), frames * patches
        step = token_slice or total
        for start in range(0, total, step):
            order = torch.arange(start, min(start + step, total), device=tokens.device)
            patch = order % patches
            index = (order // patches) * per_frame + self.special + patch
            table = Rotary(rotary.cos[patch], rotary.sin[patch])
            yield flat[:, index].float(), table, index
