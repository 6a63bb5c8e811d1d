"""Dense head of small networks: coarse maps from tokens, edges from the encoder's finer maps.

Tokens give a value for every quarter of a patch; convolutions over the finer maps correct it, and
every pixel becomes a convex combination of the nine values round it, with weights that the same
convolutions choose (the up-sampling of RAFT, Teed and Deng, ECCV 2020). A combination makes no
value that is not there, so depth stays sharp where two surfaces meet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.feature_encoder import GUIDES, PATCH
from scal3r_ros.networks.scal3r.architecture import Architecture

_EPS = 1e-5
_WIDTH = 48
_CELL, _FACTOR = 2, PATCH // 2
"""Coarse values along a patch's side, and pixels along the side of each of their cells."""


class GuidedHead(nn.Module):
    """The levels of a frame are the encoder's finer maps and the projection of the last collected
    layer."""

    def __init__(self, a: Architecture, out_channels: int):
        super().__init__()
        self.last, self.out = len(a.intermediate_layers) - 1, out_channels
        self.norm = nn.LayerNorm(2 * a.embed_dim, eps=_EPS)
        self.coarse = nn.Linear(2 * a.embed_dim, out_channels * _CELL**2)
        self.context = nn.Linear(2 * a.embed_dim, _WIDTH)
        self.guide = nn.Conv2d(GUIDES, _WIDTH, 1)
        self.mix = nn.Conv2d(2 * _WIDTH, _WIDTH, 3, padding=1)
        self.refine = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.correction = nn.Conv2d(_WIDTH, out_channels, 1)
        self.mask = nn.Conv2d(_WIDTH, 9 * _FACTOR**2, 1)
        for parameter in self.correction.parameters():
            nn.init.zeros_(parameter)

    def project(self, level: int, feature: Tensor, grid: tuple[int, int]) -> tuple[Tensor, ...]:
        """Patch features (N, gh * gw, 2C) to (N, channels, gh, gw); only the last level counts."""
        if level != self.last:
            return ()
        x = self.norm(feature)
        x = torch.cat((self.coarse(x), self.context(x)), dim=-1)
        return (x.transpose(1, 2).unflatten(2, grid),)

    def forward(self, levels: tuple[Tensor, ...]) -> Tensor:
        """Finer maps (N, 288, gh, gw) and projection to raw maps (N, out_channels, H, W)."""
        guides, projected = levels
        coarse, context = projected.split((self.out * _CELL**2, _WIDTH), dim=1)
        seen = self.guide(F.pixel_shuffle(guides, _CELL)).relu()
        x = torch.cat((seen, F.interpolate(context, scale_factor=_CELL, mode="nearest")), dim=1)
        x = self.refine(self.mix(x).relu()).relu()
        values = F.pixel_shuffle(coarse, _CELL) + self.correction(x)
        return _convex(values, self.mask(x))


def _convex(values: Tensor, mask: Tensor) -> Tensor:
    """Every pixel a convex combination of the 3 x 3 values (N, c, h, w) round its cell; mask: (N,
    9 * f * f, h, w) logits."""
    height, width = values.shape[-2:]
    weights = mask.unflatten(1, (9, _FACTOR**2)).softmax(1)
    around = F.unfold(F.pad(values, (1, 1, 1, 1), mode="replicate"), 3)
    around = around.unflatten(1, (values.shape[1], 9)).unflatten(-1, (height, width))
    fine = torch.einsum("nckhw,nkfhw->ncfhw", around, weights)
    return F.pixel_shuffle(fine.flatten(1, 2), _FACTOR)
