"""Photographs as surfaces: crops of a folder of images among the procedural textures of a pool.

Photographs are read where a run is prepared and are never part of this package; which ones a run
used belongs into its log.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from scal3r_ros.train.worlds.textures import SIZE, TexturePool, pyramid

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LARGEST = 1600
"""Photographs are shrunk to this width before crops are taken."""
_CROPS = (64, 400)
"""Side of a crop in pixels of the shrunk photograph."""


def with_photographs(pool: TexturePool, folder: Path, seed: int, share: float = 0.5) -> TexturePool:
    """The pool with a share of its surfaces replaced by crops of the photographs below `folder`."""
    photographs = [_read(path) for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES]
    if not photographs:
        raise ValueError(f"no photographs ({', '.join(_SUFFIXES)}) below {folder}")
    generator = torch.Generator().manual_seed(seed)
    first, last = pool.surfaces
    chosen = torch.randperm(last - first, generator=generator)[: round(share * (last - first))]
    crops = torch.stack(
        [_crop(photographs[_integer(len(photographs), generator)], generator) for _ in chosen]
    )
    texels = pool.texels.view(pool.skies[1], -1, 3).clone()
    texels[first + chosen] = pyramid(crops).view(len(chosen), -1, 3)
    return replace(pool, texels=texels.view(-1, 3))


def _read(path: Path) -> Tensor:
    """(3, H, W) in [0, 1]."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        image = image.convert("RGB")
        image.thumbnail((_LARGEST, _LARGEST))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _crop(photograph: Tensor, generator: torch.Generator) -> Tensor:
    """A square crop beside its mirror images, which repeats without a seam, (3, SIZE, SIZE)."""
    largest = min(_CROPS[1], *photograph.shape[1:])
    side = _CROPS[0] + _integer(largest - _CROPS[0] + 1, generator)
    top, left = (_integer(edge - side + 1, generator) for edge in photograph.shape[1:])
    crop = photograph[:, top : top + side, left : left + side][None]
    half = torch.nn.functional.interpolate(crop, size=(SIZE // 2, SIZE // 2), mode="area")[0]
    wide = torch.cat([half, half.flip(-1)], -1)
    return torch.cat([wide, wide.flip(-2)], -2)


def _integer(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))
