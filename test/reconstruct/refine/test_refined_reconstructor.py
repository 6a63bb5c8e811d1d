"""Bundle adjustment of predicted chunks: errors shrink, and what cannot be better stays."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from scal3r_ros.io.inputs import open_source
from scal3r_ros.mapping.similarity_fit import robust_similarity
from scal3r_ros.reconstruct.factory import open_features
from scal3r_ros.reconstruct.sfm.adjustment import (
    Observations,
    Priors,
    Scene,
    adjust,
    pose_changes,
)
from scal3r_ros.records import Chunk, ChunkPrediction

pytest.importorskip("pycolmap", reason="pycolmap is absent")

ROOM = Path(__file__).resolve().parents[3] / "demo" / "loop_room"
PRIORS = Priors(pixel=0.002, widest=0.05, log_depth=0.3, rotation=0.1, translation=0.3)


def turned(vector):
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.asarray(vector, float))[0]
    return T


def made_scene(random):
    """Five cameras side by side and points that all of them see."""
    T = np.stack([turned(random.normal(0, 0.03, 3)) for _ in range(5)])
    T[:, 0, 3] = -0.4 * np.arange(5)
    points = random.uniform([-2, -1.5, 3], [3, 1.5, 6], (150, 3))
    scene = Scene(T, points)
    frame, point = np.divmod(np.arange(5 * len(points)), len(points))
    ones = np.ones(len(frame))
    seen = scene.seen(Observations(frame, point, np.zeros((len(frame), 2)), ones, ones))
    depth = seen[:, 2] * np.exp(random.normal(0, 0.1, len(frame)))
    return scene, Observations(frame, point, seen[:, :2] / seen[:, 2:], depth, ones)


def test_cameras_and_points_come_back_despite_outliers():
    random = np.random.default_rng(0)
    truth, seen = made_scene(random)
    rays = seen.rays + random.normal(0, 0.001, seen.rays.shape)
    rays[::20] += random.normal(0, 0.3, rays[::20].shape)
    wrong = np.stack([turned(random.normal(0, 0.03, 3)) for _ in range(5)])
    wrong[:, :3, 3] = random.normal(0, 0.05, (5, 3))
    start = Scene(wrong @ truth.T_camera_world, truth.points + random.normal(0, 0.2, (150, 3)))
    found = adjust(start, replace(seen, rays=rays), PRIORS)
    S = robust_similarity(found.points, truth.points, np.ones(150), np.full(150, 4.0), 10)
    S = S.S_target_source
    assert np.median(np.linalg.norm(S.apply(found.points) - truth.points, axis=1)) < 0.03
    relative = found.T_camera_world @ np.linalg.inv(found.T_camera_world[:1])
    expected = truth.T_camera_world @ np.linalg.inv(truth.T_camera_world[:1])
    turns = np.linalg.norm(pose_changes(expected, relative)[:, :3], axis=1)
    before = start.T_camera_world @ np.linalg.inv(start.T_camera_world[:1])
    assert (
        turns.max() < 0.004 < np.linalg.norm(pose_changes(expected, before)[1:, :3], axis=1).min()
    )


def test_a_camera_without_features_stays_where_it_was():
    truth, seen = made_scene(np.random.default_rng(1))
    few = Observations(*(a[seen.frame != 2] for a in (
        seen.frame, seen.point, seen.rays, seen.depth, seen.spread)))  # fmt: skip
    found = adjust(truth, few, PRIORS)
    assert np.abs(pose_changes(truth.T_camera_world, found.T_camera_world)[2]).max() < 1e-9


def spread(depth):
    """The depth of the features in a map (H, W), given to everything around them."""
    known, window = np.isfinite(depth), (41, 41)
    count = cv2.blur(known.astype(np.float32), window)
    return cv2.blur(np.where(known, depth, 0), window) / np.maximum(count, 1e-6)


class Rough:
    """A network that is wrong by a little in everything; poses are those of `sfm`."""

    name, round_size = "rough", 1

    def __init__(self, turn=0.0):
        from scal3r_ros.config import SfmConfig
        from scal3r_ros.reconstruct.sfm.reconstructor import SfmReconstructor

        config = SfmConfig(dense=False, max_features=800)
        self.sfm, self.turn = SfmReconstructor(config, open_features("sift")), turn
        self.truth = None

    def reconstruct(self, chunk, contribute=True):
        self.truth = truth = self.sfm.reconstruct(chunk, contribute)
        random = np.random.default_rng(0)
        T = truth.T_chunk_camera.copy()
        for row in range(len(T)):
            T[row] = T[row] @ turned(random.normal(0, self.turn, 3))
        depth = np.stack([spread(d) for d in truth.depth])
        depth *= np.exp(random.normal(0, 0.1, (len(T), 1, 1))).astype(np.float32)
        return replace(
            truth, T_chunk_camera=T, depth=depth, confidence=(depth > 0).astype(np.float32)
        )

    def reset(self):
        self.sfm.reset()


@pytest.fixture(scope="module")
def chunk():
    images = islice(open_source(ROOM), 0, 36, 4)
    return Chunk(0, 0, tuple(replace(im.decode(), id=i) for i, im in enumerate(images)))


def refined_by(network, chunk):
    from scal3r_ros.reconstruct.refine.reconstructor import RefinedReconstructor

    refined = RefinedReconstructor(network, open_features("sift"), 800, 0)
    predicted, found = network.reconstruct(chunk), refined.reconstruct(chunk)
    network.reset()
    return predicted, found


def turns(found: ChunkPrediction, truth: ChunkPrediction):
    """How far the steps from frame to frame are turned from the true ones, degrees."""
    steps = [np.linalg.inv(T[:-1]) @ T[1:] for T in (truth.T_chunk_camera, found.T_chunk_camera)]
    return np.degrees(np.linalg.norm(pose_changes(*steps)[:, :3], axis=1))


def test_a_rough_chunk_is_refined(chunk):
    network = Rough(turn=0.02)
    predicted, found = refined_by(network, chunk)
    assert "is refined by" in found.note
    assert np.median(turns(predicted, network.truth)) > 1.0 > 2 * turns(found, network.truth).max()
    assert found.frame_ids == predicted.frame_ids


def test_images_without_texture_leave_the_chunk_as_it_was(chunk):
    network = Rough(turn=0.02)
    predicted = network.reconstruct(chunk)
    network.reconstruct = lambda chunk, contribute=True: predicted
    blank = [replace(frame, rgb=np.full_like(frame.rgb, 90)) for frame in chunk.frames]
    from scal3r_ros.reconstruct.refine.reconstructor import RefinedReconstructor

    refined = RefinedReconstructor(network, open_features("sift"), 800, 0)
    found = refined.reconstruct(replace(chunk, frames=tuple(blank)))
    assert "stays as the network predicted it: only 0 matched points" in found.note
    np.testing.assert_array_equal(found.T_chunk_camera, predicted.T_chunk_camera)
    np.testing.assert_array_equal(found.depth, predicted.depth)


def test_the_option_wraps_a_network_and_refuses_to_finalize(chunk):
    pytest.importorskip("torch", reason="torch is absent")
    from scal3r_ros.config import Config, MemoryConfig, ModelConfig
    from scal3r_ros.reconstruct.factory import open_reconstructor

    model = ModelConfig(reconstructor="scal3r", refine="bundle")
    network = open_reconstructor(Config(model=model))
    assert network.reconstruct(replace(chunk, frames=chunk.frames[:3])).note.startswith("chunk 0 ")
    with pytest.raises(ValueError, match="memory.mode finalize"):
        open_reconstructor(Config(model=model, memory=MemoryConfig(mode="finalize")))
