"""Frame descriptors for place recognition, pooled from tokens that the encoder computes anyway."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_POWER = 3.0
_FLOOR = 1e-6


def frame_descriptors(patch_tokens: Tensor) -> Tensor:
    """Generalised-mean pooling of (S, N, C) tokens to unit vectors (S, C)."""
    pooled = patch_tokens.float().clamp_min(_FLOOR).pow(_POWER).mean(dim=1).pow(1 / _POWER)
    return F.normalize(pooled, dim=-1)
