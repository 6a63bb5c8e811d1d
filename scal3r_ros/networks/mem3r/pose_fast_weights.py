"""Mem3R's memory of poses: a small gated MLP per head that every frame adapts (paper, section 3).

Three pure steps, as everywhere here: `read` applies the weights, `gradient` of the objective
<z, p> with respect to them, `update` by gradient ascent with decay. All in closed form, so that
ordinary differentiation through time trains them.
"""

from __future__ import annotations

from math import expm1, log
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.mem3r.architecture import Architecture


class PoseWeights(NamedTuple):
    """Per sample and head, (B, heads, D, D) each, acting on column vectors (out, in)."""

    w1: Tensor
    w2: Tensor
    w3: Tensor


class Reading(NamedTuple):
    """What a query found, and what the gradient needs of the way there."""

    query: Tensor
    """(B, heads, D), unit length per head."""
    gate: Tensor
    """W1 q, (B, heads, D)."""
    value: Tensor
    """W3 q, (B, heads, D)."""
    answer: Tensor
    """W2 (silu(gate) * value), heads side by side, (B, d)."""
    prior: Tensor
    """Pose token (B, d)."""


class Rates(NamedTuple):
    """How strongly a frame writes."""

    keep: Tensor
    """Factor on the old weights, (B, heads)."""
    step: Tensor
    """Step sizes of W1, W2, W3, (B, heads, 3)."""


class PoseFastWeights(nn.Module):
    """What a mean image feature recalls of earlier poses. The memory is handed in and out as
    `PoseWeights`; a rate head whose output is zero gives the rate `lr_base`."""

    def __init__(self, a: Architecture):
        super().__init__()
        width, heads = a.dec_embed_dim, a.dec_num_heads
        size = width // heads
        self.num_heads, self.forget = heads, a.decay
        self.rate_offset = log(expm1(a.lr_base))
        self.query = nn.Linear(a.enc_embed_dim, width)
        self.w1, self.w3 = (nn.Parameter(torch.randn(heads, size, size)) for _ in range(2))
        self.w2 = nn.Parameter(torch.randn(heads, size, size) * size**-0.5)
        self.out = nn.Linear(width, width)
        self.lr = nn.Linear(a.enc_embed_dim, 3 * heads)
        self.decay = nn.Linear(a.enc_embed_dim, heads)
        self._initialise(width)

    @torch.no_grad()
    def _initialise(self, width: int) -> None:
        """Unit queries are not scaled again, so W1 and W3 start at order one."""
        nn.init.xavier_uniform_(self.query.weight)
        nn.init.normal_(self.out.weight, std=width**-0.5)
        for weight in (self.lr.weight, self.decay.weight):
            nn.init.zeros_(weight)
        for layer in (self.query, self.out, self.lr, self.decay):
            nn.init.zeros_(layer.bias)

    def initial(self, batch: int) -> PoseWeights:
        return PoseWeights(*(w.expand(batch, -1, -1, -1) for w in (self.w1, self.w2, self.w3)))

    def read(self, feature: Tensor, memory: tuple[Tensor, ...]) -> Tensor:
        """Pose token (B, d) that `feature` (B, d_e) recalls."""
        return self.reading(feature, PoseWeights(*memory)).prior

    def write(self, feature: Tensor, memory: tuple[Tensor, ...], pose: Tensor) -> PoseWeights:
        """The memory after a frame with mean `feature` (B, d_e) and refined `pose` (B, d)."""
        weights = PoseWeights(*memory)
        gradient = self.gradient(self.reading(feature, weights), weights, pose)
        return update(weights, gradient, self.rates(feature))

    def reading(self, feature: Tensor, memory: PoseWeights) -> Reading:
        query = self.query(feature).unflatten(-1, (self.num_heads, -1))
        query = F.normalize(query, dim=-1, eps=1e-12)
        gate, value = _act(memory.w1, query), _act(memory.w3, query)
        answer = _act(memory.w2, F.silu(gate) * value).flatten(-2)
        return Reading(query, gate, value, answer, self.out(answer))

    def gradient(self, reading: Reading, memory: PoseWeights, pose: Tensor) -> PoseWeights:
        """Of <prior, pose> with respect to the weights that were read."""
        _, gate, value, _, _ = reading
        target = (pose @ self.out.weight).unflatten(-1, (self.num_heads, -1))
        back = _act(memory.w2.transpose(-1, -2), target)
        sigmoid = gate.sigmoid()
        slope = sigmoid * (1 + gate * (1 - sigmoid))
        active = gate * sigmoid
        return PoseWeights(
            _outer(back * value * slope, reading.query),
            _outer(target, active * value),
            _outer(back * active, reading.query),
        )

    def rates(self, feature: Tensor) -> Rates:
        step = F.softplus(self.lr(feature) + self.rate_offset)
        return Rates(
            1 - self.forget * self.decay(feature).sigmoid(),
            step.unflatten(-1, (self.num_heads, 3)),
        )


def update(memory: PoseWeights, gradient: PoseWeights, rates: Rates) -> PoseWeights:
    """Decay, then ascent."""
    keep = rates.keep[..., None, None]
    steps = rates.step[..., None, None].unbind(-3)
    return PoseWeights(*(keep * w + s * g for w, g, s in zip(memory, gradient, steps)))


def _act(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left[..., :, None] * right[..., None, :]


class StateGate(nn.Module):
    """How much of each channel of a state token a frame may overwrite (Mem3R)."""

    def __init__(self, a: Architecture):
        super().__init__()
        self.fc1 = nn.Linear(a.dec_embed_dim + a.enc_embed_dim, a.gate_width)
        self.fc2 = nn.Linear(a.gate_width, a.dec_embed_dim)
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.zeros_(self.fc1.bias)
        nn.init.zeros_(self.fc2.weight)
        nn.init.constant_(self.fc2.bias, 0.5)

    def forward(self, state: Tensor, feature: Tensor) -> Tensor:
        """Share (B, S, d) from the stored `state` (B, S, d) and the mean `feature` (B, d_e)."""
        both = torch.cat((state, feature[:, None].expand(-1, state.shape[1], -1)), dim=-1)
        return self.fc2(F.gelu(self.fc1(both))).sigmoid()
