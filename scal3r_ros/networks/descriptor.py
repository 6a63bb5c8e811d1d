"""Frame descriptors for place recognition, pooled from tokens that the encoder computes anyway.

Second-order pooling: how the patches of a frame vary together tells places apart better than their
mean or generalised mean, which is nearly the same for all frames of a session. Signed roots keep a
few strong entries from deciding alone (Lin and Maji, "Improved bilinear pooling", 2017). Compared
with other poolings in docs/benchmarks.md; VLAD is better but needs a vocabulary, which all
processes of a session would have to share.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_WIDTH = 64
"""Longer tokens are projected to this many fixed orthonormal directions first."""


def frame_descriptors(patch_tokens: Tensor) -> Tensor:
    """Signed roots of the covariance of tokens (S, N, C) over the patches of each frame: unit
    vectors (S, <= 2080)."""
    found = covariances(patch_tokens)
    return F.normalize(found.sign() * found.abs().sqrt(), dim=-1)


def covariances(patch_tokens: Tensor) -> Tensor:
    """Upper triangles of the covariances of tokens (S, N, C): (S, <= 2080)."""
    tokens = patch_tokens.float()
    if tokens.shape[2] > _WIDTH:
        tokens = tokens @ _directions(tokens.shape[2]).to(tokens.device)
    centred = F.normalize(tokens - tokens.mean(dim=1, keepdim=True), dim=-1)
    covariance = centred.transpose(1, 2) @ centred / tokens.shape[1]
    rows, columns = torch.triu_indices(*covariance.shape[1:], device=tokens.device)
    return covariance[:, rows, columns]


def _directions(channels: int) -> Tensor:
    """(C, _WIDTH) orthonormal columns, the same on every machine."""
    generator = torch.Generator().manual_seed(channels)
    return torch.linalg.qr(torch.randn(channels, _WIDTH, generator=generator))[0]
