"""Fast weights: a small gated network whose matrices are adapted while the large one runs.

f(k) = (silu(k W0) * (k W2)) W1, and the objective, to be raised, is the sum over tokens of
<f(k), v>. Three pure steps: `gradient` (at given fast weights), `update` (orthogonalise and
renormalise) and `apply_weights` (read with queries). Always float32; only the Newton-Schulz
iteration may run in bfloat16.

One rule, two orders. Scal3R *updates, then applies*: gradients of all chunks are summed at the
initial weights, W = renorm(W0 + NS5(sum G)), and every chunk reads its own writing too. LoGeR
*applies, then updates*: a window reads the weights that earlier windows wrote, then moves these
same weights, W <- renorm(W + NS5(G(W))), so its own content reaches only the next window.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
GRAM_FROM = 2
"""Columns over rows from which the iteration over the Gram matrix has fewer operations."""
GRAM_STEPS = 3
"""Steps over one Gram matrix: its rounding grows by the square of 3.4445 in each. Three keep the
error of the plain iteration (measured), five make it fifty times as large."""
_COLUMN_EPS = 1e-5
_FROBENIUS_EPS = 1e-7


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

    @property
    def is_finite(self) -> bool:
        return all(bool(torch.isfinite(a).all()) for a in self)


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
    In float32 wide matrices take the shorter way over their Gram matrix.
    """
    a, b, c = _QUINTIC
    tall = g.shape[1] > g.shape[2]
    x = g.to(dtype)
    if tall:
        x = x.transpose(1, 2)
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + _FROBENIUS_EPS)
    if dtype == torch.float32 and x.shape[2] >= GRAM_FROM * x.shape[1]:
        for part in gram_steps(steps):
            x = _over_gram(x, part)
        return x.transpose(1, 2) if tall else x
    for _ in range(steps):
        s = x @ x.transpose(1, 2)
        x = a * x + (b * s + (c * s) @ s) @ x
    return (x.transpose(1, 2) if tall else x).float()


def gram_steps(steps: int) -> list[int]:
    """How many steps go over one Gram matrix before it is computed anew."""
    return [min(GRAM_STEPS, steps - done) for done in range(0, steps, GRAM_STEPS)]


def _over_gram(x: Tensor, steps: int) -> Tensor:
    """The same iteration for matrices (B, rows, cols) with few rows.

    Every step multiplies x from the left by M = a + b S + c S^2 with S = x x^T, and M and S
    commute, so that S follows by S <- M S M, and x needs to be touched at the start and the end
    only.
    """
    gram = x @ x.transpose(1, 2)
    factor = product = _factor(gram)
    for _ in range(steps - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    return product @ x


def _factor(gram: Tensor) -> Tensor:
    """a + b S + c S^2 of Gram matrices S."""
    a, b, c = _QUINTIC
    unit = torch.eye(gram.shape[1], device=gram.device)
    return a * unit + b * gram + (c * gram) @ gram


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
