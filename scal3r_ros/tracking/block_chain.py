"""Blocks of a recurrent tracker joined to one path.

The state of such a network drifts, so it is reset every so many images. The last image of a block
is shown again as the first of the next: its pose in the old block is where the new one begins, and
the ratio of the depths that both blocks see in it is the ratio of their scales.
"""

from __future__ import annotations

import numpy as np

TRUSTED_RATIO = (0.8, 1.25)
"""Ratios outside make the poses behind them doubtful."""


class BlockChain:
    """Poses of blocks in the frame of the first; `base` is where the present block begins."""

    def __init__(self, correct_scale: bool = False) -> None:
        """With `correct_scale` later blocks are told in the scale of the first."""
        self.base = np.eye(4)
        self.scale = 1.0
        self.block_id = 0
        self._correct_scale = correct_scale

    def place(self, T_block_camera: np.ndarray) -> np.ndarray:
        """T_chain_camera (4, 4)."""
        local = T_block_camera.copy()
        local[:3, 3] *= self.scale
        return self.base @ local

    def end_block(self, T_block_camera: np.ndarray, scale_ratio: float = 1.0) -> None:
        """The image at `T_block_camera` (4, 4) ended the block; lengths of the new one times
        `scale_ratio` are those of the old."""
        self.base = self.place(T_block_camera)
        self.block_id += 1
        if self._correct_scale:
            self.scale *= scale_ratio


def depth_ratio(
    old: np.ndarray, new: np.ndarray, confidence_old: np.ndarray, confidence_new: np.ndarray
) -> float:
    """Old over new scale from two depth maps (H, W) of one image: ratio of their medians, weighted
    by confidence. Raises `ValueError` if one is empty."""
    return _weighted_median(old, confidence_old) / _weighted_median(new, confidence_new)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    known = np.isfinite(values) & (values > 0) & (weights > 0)
    if not known.any():
        raise ValueError("a depth map without any depth tells no scale")
    order = np.argsort(values[known])
    total = np.cumsum(weights[known][order])
    return float(values[known][order][np.searchsorted(total, total[-1] / 2)])
