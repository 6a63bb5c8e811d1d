"""Reading a texture pool: bilinear, from the mip level that fits, without visible repetition."""

from __future__ import annotations

import torch
from torch import Tensor

from scal3r_ros.train.worlds.textures import LEVELS, SIZE, TexturePool, level_offsets

_MACRO = 7.3


def sample_texture(
    pool: TexturePool, texture: Tensor, u: Tensor, v: Tensor, footprint: Tensor
) -> Tensor:
    """Bilinear colour (..., 3) at texel coordinates of the finest level, from the level that
    matches a pixel's footprint."""
    level = torch.log2(footprint.clamp(min=1.0)).round().long().clamp(max=LEVELS - 1)
    offsets = torch.tensor(level_offsets(), device=u.device)
    edge = torch.bitwise_right_shift(torch.full_like(level, SIZE), level)
    base = texture * int(offsets[-1]) + offsets[level]
    scale = torch.exp2(-level.float())
    u, v = u * scale - 0.5, v * scale - 0.5
    left, top = torch.floor(u), torch.floor(v)
    fu, fv = (u - left)[..., None], (v - top)[..., None]
    mask = edge - 1
    x0, y0 = left.long() & mask, top.long() & mask
    x1, y1 = (x0 + 1) & mask, (y0 + 1) & mask

    def texel(y: Tensor, x: Tensor) -> Tensor:
        return pool.texels[base + y * edge + x].float()

    upper = texel(y0, x0) * (1 - fu) + texel(y0, x1) * fu
    lower = texel(y1, x0) * (1 - fu) + texel(y1, x1) * fu
    return (upper * (1 - fv) + lower * fv) / 255.0


def coarse_variation(
    pool: TexturePool, texture: Tensor, u: Tensor, v: Tensor, footprint: Tensor, strength: Tensor
) -> Tensor:
    """Factor (..., 3) of another texture of the same group, seven times as coarse."""
    first, last = pool.surfaces
    other = torch.where(texture < last, first + (texture + 7) % (last - first), texture)
    coarse = sample_texture(pool, other, u / _MACRO, v / _MACRO, footprint / _MACRO)
    return 1 + strength[..., None] * (2 * coarse - 1)
