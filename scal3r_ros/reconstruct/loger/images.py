"""Images as LoGeR wants them: about as many pixels as it was trained with, one size for a whole
sequence, decided by its first image.

Later images of another shape are squeezed to that size, as in the release; nothing is cropped.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image


def target_size(height: int, width: int, pixel_limit: int, patch: int) -> tuple[int, int]:
    """Height and width, multiples of `patch`, with at most `pixel_limit` pixels (but at least one
    patch) and nearly the aspect of the image; small images are enlarged."""
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height} x {width} pixels is empty; leave it out")
    factor = math.sqrt(pixel_limit / (width * height))
    wide, high = width * factor, height * factor
    columns, rows = round(wide / patch), round(high / patch)
    while columns * patch * rows * patch > pixel_limit:
        if columns * high > rows * wide:
            columns -= 1
        else:
            rows -= 1
    return patch * max(1, rows), patch * max(1, columns)


def prepare_image(rgb: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    """Resize `rgb` (h, w, 3) uint8 to `target` (H, W)."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(
            f"images must be (H, W, 3) uint8, found {rgb.shape} {rgb.dtype}; convert them first"
        )
    if rgb.shape[:2] == target:
        return rgb
    resized = Image.fromarray(rgb).resize(target[::-1], Image.Resampling.LANCZOS)
    return np.asarray(resized)
