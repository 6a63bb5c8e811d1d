"""Images as the network wants them: one size for a whole sequence, decided by its first image.

Every image is resized with Pillow's antialiased bicubic filter until it covers the target, then
cropped about its centre. All stays 8-bit, as in Scal3R's own loader.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class PreparedImage:
    """A resized and cropped image and how its pixels relate to the original's."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    scale: tuple[float, float]
    """Resize factors (x, y)."""
    offset: tuple[int, int]
    """Pixels (left, top) cut off after the resize."""

    def intrinsics(self, original: np.ndarray) -> np.ndarray:
        """Pinhole matrix (3, 3) for `rgb` from the one for the original image."""
        adjusted = np.array([[self.scale[0]], [self.scale[1]], [1.0]]) * original
        adjusted[0, 2] -= self.offset[0]
        adjusted[1, 2] -= self.offset[1]
        return adjusted


def target_size(height: int, width: int, image_size: int, patch: int) -> tuple[int, int]:
    """Height and width, multiples of `patch`, for a sequence that starts with such an image.

    The width becomes `image_size`, also for portrait images; with 0 the image keeps its own size,
    rounded down.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height} x {width} pixels is empty; leave it out")
    if image_size <= 0:
        return max(patch, height // patch * patch), max(patch, width // patch * patch)
    if image_size < patch:
        raise ValueError(
            f"image size {image_size} is smaller than one patch ({patch} px); raise "
            f"model.image_size"
        )
    scaled = int(height / width * image_size)
    return max(patch, scaled // patch * patch), image_size // patch * patch


def prepare_image(rgb: np.ndarray, target: tuple[int, int], patch: int) -> PreparedImage:
    """Resize `rgb` (h, w, 3) uint8 to cover `target` (H, W) and crop to it."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(
            f"images must be (H, W, 3) uint8, found {rgb.shape} {rgb.dtype}; convert them first"
        )
    (height, width), (target_h, target_w) = rgb.shape[:2], target
    ratio = max(target_h / height, target_w / width)
    new_h = max(patch, round(height * ratio / patch) * patch)
    new_w = max(patch, round(width * ratio / patch) * patch)
    if (new_h, new_w) != (height, width):
        image = Image.fromarray(rgb).resize((new_w, new_h), Image.Resampling.BICUBIC)
        rgb = np.asarray(image)
    top, left = (new_h - target_h) // 2, (new_w - target_w) // 2
    cropped = rgb[top : top + target_h, left : left + target_w]
    return PreparedImage(
        np.ascontiguousarray(cropped), (new_w / width, new_h / height), (left, top)
    )
