"""Depth maps that two chunks are joined by: features keep their depth where nothing is dense."""

import numpy as np
import pytest

from scal3r_ros.reconstruct.sfm.features import Features
from scal3r_ros.reconstruct.sfm.model import Model, Tracks
from scal3r_ros.records import Frame

K = np.array([[140.0, 0, 80.0], [0, 140.0, 60.0], [0, 0, 1]])


def test_features_keep_their_depth_where_nothing_is_dense():
    pytest.importorskip("pycolmap", reason="pycolmap is absent")
    from scal3r_ros.reconstruct.sfm.calibration import pinhole
    from scal3r_ros.reconstruct.sfm.prediction import depth_maps, filled

    random = np.random.default_rng(0)
    points = random.uniform([-1, -0.8, 3], [1, 0.8, 5], (60, 3))
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = 0.2 * np.arange(4)
    frame, point = np.divmod(np.arange(4 * 60), 60)
    tracks = Tracks(points, point, frame, point)
    camera = pinhole(K, 160, 120)
    model = Model((0, 1, 2, 3), poses, tracks, np.full(60, 0.1), np.full(60, 0.2), camera)
    local = points[None] - poses[:, None, :3, 3]
    pixels = local[..., :2] / local[..., 2:] * 140.0 + K[:2, 2]
    features = [Features(p.astype(np.float32), np.zeros((60, 1), np.float32)) for p in pixels]
    blank = np.full((120, 160, 3), 90, np.uint8)
    frames = [Frame(i, i, blank, K) for i in range(4)]
    sparse = depth_maps(frames, features, model, range(4), K, 160)
    maps = filled(sparse, model, range(4), [1, 2], 2)
    for row in (1, 2):
        x, y = pixels[row].astype(int).T
        assert np.isfinite(maps.depth[row, y, x]).all() and (maps.confidence[row, y, x] > 0).all()
        assert np.median(np.abs(maps.depth[row, y, x] / local[row, :, 2] - 1)) < 1e-5
