"""Sparse points with descriptors from XFeat's maps (Potje et al., CVPR 2024, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from scal3r_ros.networks.xfeat import Heads

_THRESHOLD = 0.05
"""Smallest score of a pixel that can be a point."""
_WINDOW = 5
"""Side of the square in which a point is the maximum."""


class SparsePoints(NamedTuple):
    """The best points of one image, best first."""

    pixels: Tensor
    """(n, 2) column and row of whole pixels of the resized image; the first one is (0, 0)."""
    scores: Tensor
    """(n,) key point score times reliability."""
    descriptors: Tensor
    """(n, 64), unit length."""


def sparse_points(features: Tensor, heads: Heads, limit: int) -> SparsePoints:
    """At most `limit` points of one image, whose maps have N = 1.

    Maps are read as the reference reads them, by up to half a cell beside where geometry says, as
    its descriptors were trained that way.
    """
    scores = score_map(heads.keypoint_logits)
    pixels = local_maxima(scores)
    weights = _read(scores, pixels, scores.shape[-2:], "nearest")
    weights = (weights * _read(heads.reliability, pixels, scores.shape[-2:], "bilinear"))[:, 0]
    order = weights.argsort(descending=True, stable=True)[:limit]
    order = order[weights[order] > 0]
    maps = F.normalize(features, dim=1)
    descriptors = _read(maps, pixels[order], scores.shape[-2:], "bicubic")
    return SparsePoints(pixels[order], weights[order], F.normalize(descriptors, dim=1))


def score_map(keypoint_logits: Tensor) -> Tensor:
    """(N, 1, H, W) probability of each pixel to be its cell's point."""
    return F.pixel_shuffle(keypoint_logits.softmax(dim=1)[:, :64], 8)


def local_maxima(scores: Tensor) -> Tensor:
    """(n, 2) column and row of the pixels of one map (1, 1, H, W) that are points."""
    highest = F.max_pool2d(scores, _WINDOW, stride=1, padding=_WINDOW // 2)
    found = (scores == highest) & (scores > _THRESHOLD)
    return found[0, 0].nonzero().flip(1)


def below_a_pixel(scores: Tensor, pixels: Tensor) -> Tensor:
    """(n, 2) points moved to the top of a parabola through the logarithms of a map (1, 1, H, W) at
    each point and its two neighbours per axis, by at most half a pixel."""
    padded = F.pad(scores.clamp_min(1e-6).log(), (1, 1, 1, 1), mode="replicate")[0, 0]
    column, row = pixels.T + 1
    moves = []
    for across, down in ((1, 0), (0, 1)):
        before = padded[row - down, column - across]
        middle = padded[row, column]
        after = padded[row + down, column + across]
        bend = (2 * middle - before - after).clamp_min(1e-6)
        moves.append(((after - before) / (2 * bend)).clamp(-0.5, 0.5))
    return pixels + torch.stack(moves, dim=1)


def _read(maps: Tensor, pixels: Tensor, size: torch.Size, mode: str) -> Tensor:
    """(n, C) values of maps (1, C, h, w) at pixels of an image of `size`, with the reference's
    mixture of conventions."""
    span = torch.tensor([size[1] - 1, size[0] - 1], device=pixels.device)
    places = 2 * pixels / span - 1
    found = F.grid_sample(maps, places[None, None], mode=mode, align_corners=False)
    return found[0, :, 0].T
