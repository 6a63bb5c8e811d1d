"""The agreement of depth maps as a figure: what is off by a known amount is told so."""

import numpy as np
import pytest

from scal3r_ros.config import MapConfig
from scal3r_ros.mapping.map_quality import MapQuality
from scal3r_ros.records import ChunkPrediction


def wall_seen_twice(off, known=1.0):
    """A wall at depth 2, seen from two places; the second one is told `off` too far."""
    depth = np.full((2, 24, 32), 2.0, np.float32)
    depth[1] *= 1 + off
    depth[:, :, int(32 * known) :] = np.nan
    T = np.tile(np.eye(4), (2, 1, 1))
    T[1, 0, 3] = 0.1
    K = np.array([[30.0, 0, 16], [0, 30.0, 12], [0, 0, 1]])
    confidence = np.where(np.isfinite(depth), 10.0, 0).astype(np.float32)
    rgb = np.zeros((*depth.shape, 3), np.uint8)
    return ChunkPrediction(0, (4, 5), T, np.stack([K, K]), depth, confidence, rgb)


@pytest.mark.parametrize("off", [0.01, 0.05])
def test_disagreement_is_what_the_depths_are_apart(off):
    quality = MapQuality()
    quality.observe(wall_seen_twice(off), (4, 5), MapConfig(confidence_ratio=0.0))
    assert quality.figures()["disagreement"] == pytest.approx(off, rel=0.1)


def test_coverage_counts_owned_frames_and_survives_a_restart():
    quality = MapQuality()
    assert quality.figures() == {"disagreement": None, "coverage": None}
    quality.observe(wall_seen_twice(0.02, known=0.25), (4,), MapConfig(confidence_ratio=0.0))
    assert quality.figures()["coverage"] == pytest.approx(0.25)
    assert MapQuality.restore(quality.state()).figures() == quality.figures()
