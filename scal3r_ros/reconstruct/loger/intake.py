"""From a chunk of images to tokens: one image size for a sequence, every frame encoded once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from scal3r_ros.networks.encoder_cache import EncoderCache
from scal3r_ros.networks.loger.network import LoGeR
from scal3r_ros.reconstruct.loger.images import prepare_image, target_size
from scal3r_ros.records import Chunk


class WindowIntake:
    """The size is decided by the first image of the sequence: that of `image_width`, or with 0 what
    the checkpoint's pixel limit gives."""

    def __init__(self, network: LoGeR, image_width: int) -> None:
        self._network, self._width = network, image_width
        self._first_size: tuple[int, int] | None = None
        self.target: tuple[int, int] | None = None
        """(height, width) to which images are brought; None before the first."""
        self._cache = EncoderCache()

    def tokens(self, chunk: Chunk) -> tuple[np.ndarray, Tensor]:
        """Images (S, H, W, 3) uint8 as the network sees them, and their patch tokens (S, N, C)."""
        rgb = self._prepared(chunk)
        keys = [(frame.id, frame.stamp_ns) for frame in chunk.frames]
        row: dict[Hashable, int] = {key: i for i, key in enumerate(keys)}

        def encode(new: Sequence[Hashable]) -> Tensor:
            images = torch.from_numpy(rgb[[row[key] for key in new]])
            return self._network.encode(images.permute(0, 3, 1, 2))

        return rgb, self._cache.tokens(keys, encode, keep=chunk.kind == "sequence")

    def _prepared(self, chunk: Chunk) -> np.ndarray:
        size = chunk.first_size or self._first_size or chunk.frames[0].rgb.shape[:2]
        target = self.target
        if target is None or size != self._first_size:
            height, width = size
            target = target_size(height, width, self._pixels(height, width), self._patch)
            self._first_size, self.target = (height, width), target
            self._cache = EncoderCache()
        return np.stack([prepare_image(frame.rgb, target) for frame in chunk.frames])

    def _pixels(self, height: int, width: int) -> int:
        """How many pixels an image may have."""
        if not self._width:
            return self._network.architecture.pixel_limit
        if self._width < self._patch:
            raise ValueError(
                f"image size {self._width} is smaller than one patch ({self._patch} px); raise "
                f"model.image_size"
            )
        return max(self._patch**2, round(self._width**2 * height / width))

    @property
    def _patch(self) -> int:
        return self._network.architecture.patch_size
