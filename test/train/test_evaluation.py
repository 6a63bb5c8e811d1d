"""Scores of whole sequences, with the truth played back as predictions."""

import argparse
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scal3r_ros.config import Config  # noqa: E402
from scal3r_ros.mapping.chunking import middle_position  # noqa: E402
from scal3r_ros.options import from_dict  # noqa: E402
from scal3r_ros.reconstruct.interface import MemoryState  # noqa: E402
from scal3r_ros.records import ChunkPrediction  # noqa: E402
from scal3r_ros.train import evaluate_suite  # noqa: E402
from scal3r_ros.train.evaluation import (  # noqa: E402
    evaluate_sequence,
    standstill_error,
    trajectory_error,
)
from scal3r_ros.train.sequences import real_sequences, world_sequences  # noqa: E402


class Truth:
    """Answers with the true geometry, in units of its own, about the chunk's middle frame."""

    name, round_size = "truth", 1

    def __init__(self, sequence, twist: float = 0.0):
        self.sequence, self.twist = sequence, twist

    def reconstruct(self, chunk, contribute=True):
        ids = list(chunk.frame_ids)
        T = self.sequence.T_world_camera[ids]
        T = np.linalg.inv(T[middle_position(len(ids))]) @ T
        T[:, :3, 3] *= 0.5
        spin = np.eye(4)
        c, s = np.cos(self.twist), np.sin(self.twist)
        spin[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
        T[0] = T[0] @ spin
        depth = 0.5 * self.sequence.depth[ids]
        height, width = depth.shape[1:]
        f = self.sequence.focal
        K = np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]])
        rgb = np.stack([f.rgb for f in chunk.frames])
        ones = np.ones_like(depth)
        return ChunkPrediction(
            chunk.index, tuple(ids), T, np.stack([K] * len(ids)), depth, ones, rgb
        )

    def reconstruct_round(self, chunks):
        return [self.reconstruct(chunk) for chunk in chunks]

    def reset(self):
        pass

    def state(self):
        return MemoryState("truth", "", 0)

    def restore(self, state):
        pass


@pytest.fixture(scope="module")
def sequence():
    return next(iter(world_sequences(1, 24, size=(42, 56))))


def test_kept_worlds_are_those_that_were_rendered(sequence, tmp_path):
    for _ in range(2):
        (again,) = world_sequences(1, 24, size=(42, 56), folder=tmp_path)
        assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(again.frames, sequence.frames))
        assert np.array_equal(again.depth, sequence.depth)
        assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("mode", evaluate_suite.MEMORY_MODES)
def test_the_suite_maps_with_the_network_in_every_mode(mode):
    """`auto` may stand for another reconstructor."""
    parser = argparse.ArgumentParser()
    evaluate_suite.add_arguments(parser)
    arguments = parser.parse_args(["--set", "loop.min_gap=7", "alignment.estimator=points"])
    config = evaluate_suite.suite_config(mode, True, arguments)
    assert (config.model.reconstructor, config.memory.mode) == ("scal3r", mode)
    assert (config.loop.min_gap, config.alignment.estimator) == (7, "points")


def _config(**values):
    return from_dict(Config, {"chunk.size": 6, "chunk.overlap": 3, "loop.enabled": False} | values)


def test_the_truth_has_no_errors(sequence):
    result = evaluate_sequence(sequence, _config(), Truth(sequence))
    summary = result.chunk_scores.summary()
    assert summary["rotation"] < 0.1 and summary["direction"] < 0.1
    assert summary["abs_rel"] < 1e-3 and summary["fov"] < 1e-3
    assert result.ate < 0.5 and result.kept == 24


def test_errors_are_measured_in_degrees(sequence):
    """One frame of six turned by 0.1 rad: 5 of 15 pairs are wrong by just that."""
    scores = evaluate_sequence(sequence, _config(), Truth(sequence, 0.1)).chunk_scores
    wrong = scores.rotation[scores.rotation > 1.0]
    assert len(wrong) == len(scores.rotation) // 3
    assert torch.allclose(wrong, torch.full_like(wrong, float(np.rad2deg(0.1))), atol=0.1)


def test_trajectory_error_ignores_a_similarity_and_counts_the_rest(sequence):
    ids = list(range(24))
    c, s = np.cos(0.7), np.sin(0.7)
    moved = sequence.T_world_camera.copy()
    moved[:, :3, 3] = 2.5 * moved[:, :3, 3] @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]).T + 3.0
    assert trajectory_error(sequence, ids, list(moved)) < 1e-6
    noise = np.random.default_rng(0).normal(0, 0.05, (24, 3))
    moved[:, :3, 3] += 2.5 * noise
    expected = 100 * np.sqrt((noise**2).sum(1).mean()) / sequence.path_length
    assert trajectory_error(sequence, ids, list(moved)) == pytest.approx(expected, rel=0.35)


def test_standstill_on_a_circle_is_its_radius(sequence):
    """A closed circle: the error is the radius over the circumference."""
    angle = np.linspace(0, 2 * np.pi, 721)
    T = np.tile(np.eye(4), (721, 1, 1))
    T[:, 0, 3], T[:, 2, 3] = 3 * np.cos(angle), 3 * np.sin(angle)
    circle = replace(sequence, T_world_camera=T)
    assert standstill_error(circle) == pytest.approx(100 / (2 * np.pi), rel=1e-2)
    collapsed = [np.eye(4) for _ in range(24)]
    with pytest.raises(ValueError):
        trajectory_error(sequence, list(range(24)), collapsed)


@pytest.mark.real_data
def test_recordings_are_joined_with_their_truth(data_dir):
    sequences = {s.name: s for s in real_sequences(data_dir)}
    kitti = sequences["kitti_06_start"]
    assert len(kitti.frames) == len(kitti.T_world_camera) == 51
    assert kitti.depth is None
    cabinet = sequences["tum_fr3_cabinet"]
    assert cabinet.depth.shape == (58, 480, 640) and cabinet.focal == pytest.approx(535.4, abs=1)
    assert 0.5 < np.median(cabinet.depth[cabinet.solid]) < 5.0
    assert kitti.path_length == pytest.approx(59.9, abs=0.5)
