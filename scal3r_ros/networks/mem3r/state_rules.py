"""How strongly a frame may overwrite each state token: CUT3R, TTT3R and TTSA3R.

A rule watches the scores of the state decoder while a frame passes, and turns them into a factor
per state token. All scores are scaled, taken after the rotation and before the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """What TTSA3R compares a frame with: the frame before."""

    features: Tensor
    """Encoder output, (B, N, d_e)."""
    candidate: Tensor
    """State that the frame proposed, (B, S, d)."""


class MeanScores:
    """Mean score of every state token, over blocks, heads and image tokens.

    The mean over keys is the score of the mean key: no score matrix is needed.
    """

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._blocks = 0

    def __call__(self, queries: Tensor, keys: Tensor) -> None:
        scores = queries @ keys.mean(-2, keepdim=True).transpose(-1, -2)
        mean = scores[..., 0].mean(1) * queries.shape[-1] ** -0.5
        self._total = mean if self._total is None else self._total + mean
        self._blocks += 1

    @property
    def mean(self) -> Tensor:
        """(B, S)."""
        assert self._total is not None, "no block has been seen"
        return self._total / self._blocks


class ScoreMatrix:
    """Mean score of every state token against every patch, over blocks and heads."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._blocks = 0

    def __call__(self, queries: Tensor, keys: Tensor) -> None:
        """One matrix is kept, and one head computed at a time: full ones are large."""
        patches = keys[:, :, 1:]
        scale = queries.shape[-1] ** -0.5 / queries.shape[1]
        # The sum over heads of q_h k_h is one product of the heads side by side.
        product = queries.transpose(1, 2).flatten(2) @ patches.transpose(1, 2).flatten(2).mT
        self._total = product * scale if self._total is None else self._total + product * scale
        self._blocks += 1

    @property
    def mean(self) -> Tensor:
        """(B, S, N), without the pose token."""
        assert self._total is not None, "no block has been seen"
        return self._total / self._blocks


class StateRule(Protocol):
    """What a token mask is computed from. The first frame of a block always writes fully."""

    name: str
    remembers: bool
    """Whether it compares with the frame before."""

    def observer(self) -> MeanScores | ScoreMatrix | None:
        """A fresh one for every frame; None when scores do not matter."""

    def mask(self, observer, before: Seen | None, now: Seen) -> Tensor | float:
        """Factor per state token, (B, S)."""


class Cut3r:
    """Every frame overwrites the state."""

    name, remembers = "cut3r", False

    def observer(self) -> None:
        return None

    def mask(self, observer: None, before: Seen | None, now: Seen) -> float:
        return 1.0


class Ttt3r:
    """As strongly as the state token attends to the image (TTT3R, equation 8)."""

    name, remembers = "ttt3r", False

    def observer(self) -> MeanScores:
        return MeanScores()

    def mask(self, observer: MeanScores, before: Seen | None, now: Seen) -> Tensor:
        return observer.mean.sigmoid()


class Ttsa3r:
    """Where the proposed state changes in time and looks at what changed in the image."""

    name, remembers = "ttsa3r", True

    def observer(self) -> ScoreMatrix:
        return ScoreMatrix()

    def mask(self, observer: ScoreMatrix, before: Seen | None, now: Seen) -> Tensor | float:
        if before is None:
            return 1.0
        return temporal_mask(before, now) * spatial_mask(observer.mean, before, now)


def temporal_mask(before: Seen, now: Seen) -> Tensor:
    """(B, S): how much more than the others a token's proposal changed."""
    change = (now.candidate - before.candidate).norm(dim=-1)
    return torch.sigmoid(change / change.mean(-1, keepdim=True) - 1.5)


def dissimilarity(before: Seen, now: Seen) -> Tensor:
    """(B, N): one minus the cosine of a patch's features with those at the same place before."""
    return 1 - F.cosine_similarity(now.features, before.features, dim=-1)


def spatial_mask(scores: Tensor, before: Seen, now: Seen) -> Tensor:
    """(B, S): how much a token attends to a patch that changed; `scores` (B, S, N)."""
    return (scores.abs() * dissimilarity(before, now)[:, None]).amax(-1).sigmoid()


RULES: Mapping[str, StateRule] = {rule.name: rule for rule in (Cut3r(), Ttt3r(), Ttsa3r())}
