"""Adaptive memory unit: fast weights that are adapted to chunks while the network runs.

Three pure steps, so that one process and many differ only in what happens between the first two:
`gradient` (tokens at the initial fast weights), `update` (orthogonalise and renormalise, once per
memory), `apply_weights` (read the memory with queries). Always float32; only the Newton-Schulz
iteration may run in bfloat16.

The fast weights are a gated two-layer network f(k) = (silu(k W0) * (k W2)) W1, and the objective,
to be raised, is the sum over tokens of <f(k), v>.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.layers import Rotary, rotate
from scal3r_ros.networks.scal3r.architecture import Architecture

_QUINTIC = (3.4445, -4.7750, 2.0315)
_QK_EPS = torch.finfo(torch.float32).eps
_OUT_EPS = 1e-5
_COLUMN_EPS = 1e-5
_FROBENIUS_EPS = 1e-7
_MODULATION_EPS = 1e-6


class FastWeights(NamedTuple):
    """The three matrices, or gradients of them: w0, w2 (B, d, m) and w1 (B, m, d), float32.

    The leading dimension counts memory heads, times independent memories when training batches.
    """

    w0: Tensor
    w1: Tensor
    w2: Tensor

    def __add__(self, other: FastWeights) -> FastWeights:  # type: ignore[override]  # adds up
        return FastWeights(*(a + b for a, b in zip(self, other)))

    def scaled(self, factor: float) -> FastWeights:
        return FastWeights(*(a * factor for a in self))


def gradient(weights: FastWeights, k: Tensor, v: Tensor, rates: Tensor) -> FastWeights:
    """Ascent direction of sum_i rates[i, n] <f(k_i), v_i> with respect to w_n.

    k, v: (B, L, d); rates: (B, L, 3), one column per matrix.
    """
    gate, up = k @ weights.w0, k @ weights.w2
    sigmoid = gate.sigmoid()
    active = gate * sigmoid
    down = v @ weights.w1.transpose(1, 2)
    eta0, eta1, eta2 = rates.transpose(1, 2).unsqueeze(2).unbind(1)  # (B, 1, L) each
    slope = sigmoid * (1 + gate * (1 - sigmoid))
    k_t = k.transpose(1, 2)
    return FastWeights(
        (k_t * eta0) @ (down * up * slope),
        ((active * up).transpose(1, 2) * eta1) @ v,
        (k_t * eta2) @ (down * active),
    )


def newton_schulz(g: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Push the singular values of every matrix of `g` (B, rows, cols) towards one; float32 out.

    In bfloat16 every elementary operation rounds: scalars stay unrounded, products sum in float32.
    """
    a, b, c = _QUINTIC
    tall = g.shape[1] > g.shape[2]
    x = g.to(dtype)
    if tall:
        x = x.transpose(1, 2)
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + _FROBENIUS_EPS)
    for _ in range(steps):
        s = x @ x.transpose(1, 2)
        x = a * x + (b * s + (c * s) @ s) @ x
    return (x.transpose(1, 2) if tall else x).float()


def update(weights: FastWeights, g: FastWeights, steps: int, dtype: torch.dtype) -> FastWeights:
    """Add the orthogonalised gradient; every output column keeps the norm it had in `weights`."""

    def moved(w: Tensor, g: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(w, dim=1, keepdim=True)
        new = w + newton_schulz(g, steps, dtype)
        return new / (torch.linalg.vector_norm(new, dim=1, keepdim=True) + _COLUMN_EPS) * norm

    return FastWeights(*(moved(w, x) for w, x in zip(weights, g)))


def apply_weights(weights: FastWeights, q: Tensor) -> Tensor:
    """f(q) for queries (B, L, d)."""
    return (F.silu(q @ weights.w0) * (q @ weights.w2)) @ weights.w1


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
