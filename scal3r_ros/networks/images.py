"""Images as networks take them: what is refused, and how they are counted in patches."""

from __future__ import annotations

import torch
from torch import Tensor


def patch_grid(images: Tensor, patch: int) -> tuple[int, int]:
    """Patches (gh, gw) of images (..., H, W)."""
    height, width = images.shape[-2:]
    if height % patch or width % patch or not height or not width:
        raise ValueError(
            f"images of {height} x {width} pixels do not split into patches of {patch}; resize "
            f"them first"
        )
    return height // patch, width // patch


def check_images(images: Tensor) -> None:
    """Refuse images (N, 3, H, W) that are neither uint8 nor float in [0, 1], and none at all."""
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(
            f"images must be uint8 or float in [0, 1], found {images.dtype}; convert them"
        )
    if not len(images):
        raise ValueError("a chunk needs at least one frame, found none; leave the chunk out")
    if images.dtype != torch.uint8:
        low, high = images.aminmax()
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ValueError(
                f"float images must be in [0, 1] without NaN, found {low.item()} to {high.item()}; "
                f"divide 8-bit values by 255, or pass them as uint8"
            )


def unit_range(images: Tensor) -> Tensor:
    """Float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()
