"""XFeat features (Potje et al., CVPR 2024): found again across wide steps and on weak texture."""

from __future__ import annotations

import numpy as np

from scal3r_ros.reconstruct.sfm.features import UNIT, Features, nearest_neighbours, spread

_MIN_COSINE = 0.82
_RATIO = 0.95
"""Largest quotient of the distances to the nearest and to the second nearest neighbour."""
_SURPLUS = 3
"""Points looked at per point kept, so that the kept ones can be spread over the image."""


class LearnedFeatures:
    """XFeat on one CPU; raises `WeightsMissing` where its weights are not installed."""

    name = "xfeat"
    width = 64

    def __init__(self) -> None:
        from scal3r_ros.networks.xfeat import load_xfeat

        self._network = load_xfeat()

    def extract(self, rgb: np.ndarray, limit: int) -> Features:
        """The best points of an image (H, W, 3) uint8, spread over it and refined below a
        pixel."""
        import torch

        from scal3r_ros.networks.xfeat import resized
        from scal3r_ros.networks.xfeat_points import below_a_pixel, score_map, sparse_points

        with torch.inference_mode():
            writable = np.require(rgb, requirements="W")  # or torch warns of it
            images = torch.from_numpy(writable).permute(2, 0, 1)[None].float()
            images = resized(images.mean(dim=1, keepdim=True))
            maps, heads = self._network(images)
            found = sparse_points(maps.features, heads, _SURPLUS * limit)
            fine = below_a_pixel(score_map(heads.keypoint_logits), found.pixels)
        size = np.array(images.shape[:1:-1])
        chosen = spread(found.pixels.numpy(), found.scores.numpy(), size, limit)
        scale = np.array(rgb.shape[1::-1]) / size
        pixels = (fine.numpy()[chosen] + 0.5) * scale
        descriptors = np.rint(found.descriptors.numpy()[chosen] * UNIT)
        return Features(pixels.astype(np.float32), descriptors.astype(np.float32))

    def match(self, first: Features, second: Features) -> np.ndarray:
        """Mutual nearest neighbours that are alike and better than the second best."""
        rows, columns, best, other = nearest_neighbours(first.descriptors, second.descriptors)
        distance = np.sqrt(np.maximum(1 - best, 0))  # in units of sqrt(2)
        good = (best > _MIN_COSINE) & (distance < _RATIO * np.sqrt(np.maximum(1 - other, 0)))
        return np.stack([rows[good], columns[good]], axis=1).astype(np.uint32)

    def for_places(self, descriptors: np.ndarray) -> np.ndarray:
        """The descriptors themselves."""
        return (descriptors / UNIT).astype(np.float32)
