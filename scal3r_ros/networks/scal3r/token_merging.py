"""Attention over merged tokens (FastVGGT, ICLR 2026, section 3): tokens that look alike are
averaged before it and share its answer.

Differs from the published code in one point: a protected token that is itself a destination is not
listed twice, so that nothing changes where nothing can be merged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scal3r_ros.networks.layers import Attention, Rotary

SEED = 33
"""Of the tokens drawn from the cells: the same in all layers, and in every run."""
CELL = 2
PROTECTED = 0.1
"""Share of all tokens that are never merged, evenly spread."""
SLICE = 5000
"""Rows of the similarity matrix that are held at a time."""


def merged_attention(
    attention: Attention,
    x: Tensor,
    rotary: Rotary,
    frames: int,
    grid: tuple[int, int],
    special: int,
    rows: int = SLICE,
) -> Tensor:
    """(B, S * P, C) of normalised tokens `x`; queries, keys and values are those of `x`, merged."""
    kept, merged = partition(frames, grid, special, x.device)
    q, k, v = attention.heads(x, rotary)
    if not len(merged):
        return attention.attend(q, k, v)
    destinations = kept[:, 1].nonzero()[:, 0]
    places = kept[:, 0]
    nearest = _most_alike(x, merged, places[destinations], rows)
    target = destinations[nearest]  # (B, src) position in the short sequence
    short = [_merge(heads, places, merged, target) for heads in (q, k, v)]
    answers = attention.attend(*short)
    out = torch.empty_like(x, dtype=answers.dtype)
    out[:, places] = answers
    index = target[..., None].expand(-1, -1, answers.shape[-1])
    out[:, merged] = answers.gather(1, index)
    return out


def partition(
    frames: int, grid: tuple[int, int], special: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Places (n, 2) of tokens that stay, each with whether others may be merged into it, and places
    (m,) of those that are merged.

    Destinations are all of the first frame, special tokens, and one token of every 2 x 2 cell of
    the other frames. A rest row or column outside of the cells has none.
    """
    destination = torch.zeros(frames, special + grid[0] * grid[1], dtype=torch.bool)
    destination[0] = True
    destination[:, :special] = True
    draw = torch.Generator().manual_seed(SEED)
    cells = grid[0] // CELL, grid[1] // CELL
    for frame in range(1, frames):
        pick = torch.randint(CELL * CELL, cells, generator=draw)
        row = CELL * torch.arange(cells[0])[:, None] + pick // CELL
        column = CELL * torch.arange(cells[1])[None] + pick % CELL
        destination[frame, special + (row * grid[1] + column).flatten()] = True
    flat = destination.flatten()
    protected = torch.zeros_like(flat)
    count = int(PROTECTED * len(flat))
    if count:
        protected[torch.arange(count) * max(1, len(flat) // count)] = True
    stays = (flat | protected).nonzero()[:, 0]
    kept = torch.stack((stays, flat[stays].long()), dim=1)
    return kept.to(device), (~(flat | protected)).nonzero()[:, 0].to(device)


def _most_alike(x: Tensor, merged: Tensor, destinations: Tensor, rows: int) -> Tensor:
    """(B, m) for each merged token the number of the destination with the largest cosine."""
    normed = torch.nn.functional.normalize(x, dim=-1)
    among = normed[:, destinations].transpose(1, 2)
    return torch.cat([(normed[:, part] @ among).argmax(-1) for part in merged.split(rows)], dim=1)


def _merge(heads: Tensor, places: Tensor, merged: Tensor, target: Tensor) -> Tensor:
    """Short sequence (B, heads, n, d): every destination is the mean of itself and what is merged
    into it."""
    short = heads[:, :, places].clone()
    index = target[:, None, :, None].expand(-1, heads.shape[1], -1, heads.shape[-1])
    short.scatter_add_(2, index, heads[:, :, merged])
    counts = torch.ones(len(target), len(places), device=heads.device, dtype=heads.dtype)
    counts.scatter_add_(1, target, torch.ones_like(target, dtype=heads.dtype))
    return short / counts[:, None, :, None]
