"""From a chunk of images to what the network's layers begin with."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from scal3r_ros.networks.descriptor import frame_descriptors
from scal3r_ros.networks.encoder_cache import EncoderCache
from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.reconstruct.preprocessing import prepare_image, target_size
from scal3r_ros.reconstruct.scal3r.chunk_job import ChunkJob, network_order
from scal3r_ros.records import Chunk


class ChunkIntake:
    """Brings all images of a sequence to one size, and encodes every frame once."""

    def __init__(self, network: Scal3R, image_size: int, points: bool) -> None:
        self._network, self._image_size, self._points = network, image_size, points
        self._first_size: tuple[int, int] | None = None
        self.target: tuple[int, int] | None = None
        """(height, width) to which images are brought; None before the first."""
        self._cache = EncoderCache()

    def begin(self, chunk: Chunk) -> ChunkJob:
        """Prepare the images and encode those frames that the encoder has not seen."""
        started = time.perf_counter()
        rgb = self._prepared(chunk)
        keys = [(frame.id, frame.stamp_ns) for frame in chunk.frames]
        row: dict[Hashable, int] = {key: i for i, key in enumerate(keys)}

        def encode(new: Sequence[Hashable]) -> Tensor:
            images = torch.from_numpy(rgb[[row[key] for key in new]])
            return self._network.encode(images.permute(0, 3, 1, 2))

        tokens = self._cache.tokens(keys, encode, keep=chunk.kind == "sequence")
        order = network_order(len(rgb))
        patch = self._network.architecture.patch_size
        grid = (rgb.shape[1] // patch, rgb.shape[2] // patch)
        state = self._network.begin(tokens[order][None], grid, self._points)
        width = self._network.architecture.embed_dim
        descriptors = frame_descriptors(tokens[..., :width]).cpu().numpy()
        job = ChunkJob(chunk.index, chunk.frame_ids, rgb, order, descriptors, state)
        job.seconds["encode"] = time.perf_counter() - started
        return job

    def _prepared(self, chunk: Chunk) -> np.ndarray:
        patch = self._network.architecture.patch_size
        height, width = chunk.first_size or self._first_size or chunk.frames[0].rgb.shape[:2]
        target = self.target
        if target is None or (height, width) != self._first_size:
            target = target_size(height, width, self._image_size, patch)
            self._first_size, self.target = (height, width), target
            self._cache = EncoderCache()
        return np.stack([prepare_image(f.rgb, target, patch).rgb for f in chunk.frames])
