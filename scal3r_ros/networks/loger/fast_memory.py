"""Fast weights of LoGeR: a layer reads what earlier windows wrote, then writes its own window.

Apply, then update: with W the weights that windows before this one left,
    answer = f_W(queries),   W <- renorm(W + NS5(gradient at W)),
both over all tokens of the window. A window therefore never reads itself, and the first one reads
the learned initial weights. (Scal3R updates first and always starts from the initial weights; the
rule itself is the same, `networks/fast_weights.py`.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.fast_weights import FastWeights, apply_weights, gradient, update
from scal3r_ros.networks.layers import products_in
from scal3r_ros.networks.loger.architecture import Architecture

_EPS = 1e-5


class FastMemory(nn.Module):
    """Projections around the fast weights of one layer.

    Methods take tokens (B, L, C), all of a window, special ones included; there are no positions.
    """

    def __init__(self, a: Architecture):
        super().__init__()
        dim, width = a.embed_dim, a.ttt_head_dim
        self.heads, self.steps = dim // width, a.muon_steps
        hidden = width * a.ttt_inter_multi
        self.w0 = nn.Parameter(torch.randn(self.heads, width, hidden) / math.sqrt(width))
        self.w1 = nn.Parameter(torch.randn(self.heads, hidden, width) / math.sqrt(hidden))
        self.w2 = nn.Parameter(torch.randn(self.heads, width, hidden) / math.sqrt(width))
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        # in the checkpoints, never used
        self.to_qkv_stack = nn.ModuleList([nn.Linear(dim, 3 * dim, bias=False)])
        self.c_proj = nn.Linear(dim, dim, bias=False)
        self.lr_fc = nn.Linear(dim, 3 * self.heads)
        self.pre_norm = nn.RMSNorm(dim, eps=_EPS) if a.ttt_pre_norm else nn.Identity()
        self.o_norm = nn.RMSNorm(width, eps=_EPS)
        self.rate_offset = a.ttt_base_lr + math.log(-math.expm1(-a.ttt_base_lr))

    def initial(self, batch: int = 1) -> FastWeights:
        """The learned fast weights (B * heads, ...), which the first window reads."""
        return FastWeights(
            *(w.float().expand(batch, *w.shape).flatten(0, 1) for w in (self.w0, self.w1, self.w2))
        )

    def answer(self, tokens: Tensor, weights: FastWeights, token_slice: int | None) -> Tensor:
        """What the memory says to tokens (B, L, C), without the gate."""
        parts = [
            self._merged(apply_weights(weights, self.projected(x)[0]))
            for x in _slices(tokens, token_slice)
        ]
        return torch.cat(parts, dim=1)

    def gradient(
        self, tokens: Tensor, weights: FastWeights, token_slice: int | None
    ) -> FastWeights:
        """Raw gradient of a window at the weights it has read, summed over its tokens."""
        total: FastWeights | None = None
        for x in _slices(tokens, token_slice):
            _, k, v = self.projected(x)
            found = gradient(weights, k, v, self.rates(x))
            part = FastWeights(*(g.float() for g in found))
            total = part if total is None else total + part
        assert total is not None, "a window has tokens"
        return total

    def update(self, weights: FastWeights, g: FastWeights, dtype: torch.dtype) -> FastWeights:
        """The weights that the next window reads."""
        return update(weights, g, self.steps, dtype)

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B * heads, L, d) of tokens (B, L, C); the first two of length
        one."""
        q, k, v = F.silu(self.to_qkv(self.pre_norm(x))).float().chunk(3, dim=-1)
        return _unit(self._split(q)), _unit(self._split(k)), self._split(v)

    def rates(self, x: Tensor) -> Tensor:
        """Step sizes (B * heads, L, 3) of tokens, one for each of the three matrices; float32."""
        with products_in("float32", x.device):
            rates = F.softplus(self.lr_fc(self.pre_norm(x.float())) + self.rate_offset)
        return rates.unflatten(-1, (3, self.heads)).permute(0, 3, 1, 2).flatten(0, 1)

    def _merged(self, answer: Tensor) -> Tensor:
        heads = self.o_norm(answer.float()).unflatten(0, (-1, self.heads))
        return self.c_proj(heads.transpose(1, 2).flatten(2)).float()

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1)


def _unit(x: Tensor) -> Tensor:
    return x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + _EPS)


def _slices(tokens: Tensor, token_slice: int | None) -> Iterator[Tensor]:
    yield from tokens.split(token_slice or tokens.shape[1], dim=1)
