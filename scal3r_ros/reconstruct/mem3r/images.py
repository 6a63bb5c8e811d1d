"""Images as the CUT3R family wants them: long edge scaled, then cropped about the centre.

Everything stays 8-bit until the end; the network wants values between -1 and 1.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from scal3r_ros.reconstruct.preprocessing import PreparedImage

_SQUARE_SIZE = 224
"""At this size CUT3R's rule scales the short edge and crops a square."""


def prepare(rgb: np.ndarray, size: int, patch: int = 16) -> PreparedImage:
    """Resize `rgb` (h, w, 3) uint8 to a long edge of `size` pixels and crop to whole patches.

    A square picture becomes 4:3; size 224 makes a square of every picture.
    """
    height, width = rgb.shape[:2]
    longest, target = max(height, width), size
    if size == _SQUARE_SIZE:
        target = round(size * max(width / height, height / width))
    method = Image.Resampling.LANCZOS if longest > target else Image.Resampling.BICUBIC
    new = round(width * target / longest), round(height * target / longest)
    picture = Image.fromarray(rgb).resize(new, method)
    (cx, cy), (half_w, half_h) = (new[0] // 2, new[1] // 2), _half_sizes(new, size, patch)
    if min(half_w, half_h) == 0:
        raise ValueError(
            f"an image of {width} x {height} pixels is narrower than one patch of {patch} "
            f"pixels at size {size}; raise the size or leave it out"
        )
    picture = picture.crop((cx - half_w, cy - half_h, cx + half_w, cy + half_h))
    scale = new[0] / width, new[1] / height
    return PreparedImage(np.array(picture), scale, (cx - half_w, cy - half_h))


def _half_sizes(size: tuple[int, int], wanted: int, patch: int) -> tuple[int, int]:
    """Half of width and height after the crop."""
    if wanted == _SQUARE_SIZE:
        half = min(size[0] // 2, size[1] // 2)
        return half, half
    half_w, half_h = (2 * (side // 2) // patch * patch // 2 for side in size)
    return half_w, 3 * half_w // 4 if size[0] == size[1] else half_h


def network_input(rgb: np.ndarray) -> np.ndarray:
    """Pictures (..., H, W, 3) uint8 as the network sees them, (..., 3, H, W) float32 in -1..1."""
    return np.moveaxis(rgb.astype(np.float32) / np.float32(127.5) - 1, -1, -3)
