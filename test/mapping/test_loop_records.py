"""Loop records: what was put comes back, dense or sparse, and the quota holds."""

import numpy as np
import pytest

from scal3r_ros.mapping.loop_records import LoopRecords, NoRecord, reduce_prediction
from scal3r_ros.records import ChunkPrediction, Frame


def make(index, share, random):
    count, height, width = 3, 40, 64
    depth = random.uniform(1, 9, (count, height, width)).astype(np.float32)
    depth[random.random(depth.shape) > share] = np.nan
    confidence = np.where(np.isfinite(depth), random.uniform(1, 20, depth.shape), 0)
    ids = tuple(range(10 * index, 10 * index + count))
    images = random.integers(0, 255, (count, height, width, 3), np.uint8)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, 3] = random.standard_normal((count, 3))
    intrinsics = np.tile(np.array([[50.0, 0, 32], [0, 50, 20], [0, 0, 1]]), (count, 1, 1))
    prediction = ChunkPrediction(
        index, ids, poses, intrinsics, depth, confidence.astype(np.float32), images
    )
    frames = {i: Frame(i, 1000 * i, image, intrinsics[0]) for i, image in zip(ids, images)}
    return prediction, frames


@pytest.mark.parametrize("share", [0.9, 0.02], ids=["dense", "sparse"])
def test_records_return_geometry_and_images(tmp_path, share):
    prediction, frames = make(4, share, np.random.default_rng(0))
    LoopRecords(tmp_path).put(prediction, frames)
    records = LoopRecords(tmp_path)
    ids = prediction.frame_ids[1:]
    found, expected = records.prediction(4, ids), reduce_prediction(prediction, ids)
    assert found.frame_ids == ids and found.depth.shape == expected.depth.shape
    np.testing.assert_allclose(found.depth, expected.depth, rtol=1e-3)
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-3)
    np.testing.assert_array_equal(found.T_chunk_camera, expected.T_chunk_camera)
    np.testing.assert_array_equal(found.intrinsics, expected.intrinsics)
    for frame in records.frames(4, ids):
        original = frames[frame.id]
        assert frame.stamp_ns == original.stamp_ns
        np.testing.assert_array_equal(frame.intrinsics, original.intrinsics)
        if share < 0.05:
            np.testing.assert_array_equal(frame.rgb, original.rgb)


def test_sparse_maps_keep_every_pixel_and_take_little_space(tmp_path):
    prediction, _ = make(0, 0.02, np.random.default_rng(1))
    assert reduce_prediction(prediction).depth.shape == prediction.depth.shape
    dense, _ = make(0, 0.9, np.random.default_rng(1))
    assert reduce_prediction(dense).depth.shape == (3, 10, 16)


def test_the_oldest_records_go_when_the_quota_is_full(tmp_path):
    random = np.random.default_rng(2)
    records = LoopRecords(tmp_path, max_megabytes=0.1)
    for index in range(12):
        records.put(*make(index, 0.9, random))
    assert records.nbytes <= 0.1e6 and 11 in records and 0 not in records
    with pytest.raises(NoRecord, match="no record of chunk 0"):
        records.frames(0, (0,))
