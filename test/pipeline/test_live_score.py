"""Scores of live poses: agreement with evo, and what a known error comes to."""

import numpy as np
import pytest

from scal3r_ros import rigid
from scal3r_ros.cli import main
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.tracked import TrackedImage, write_tracked
from scal3r_ros.io.tum import write_trajectory
from scal3r_ros.pipeline.evaluation import score_trajectory
from scal3r_ros.pipeline.live_score import score_images
from scal3r_ros.records import TrajectoryPose

STEP_NS = 100_000_000


def walk(count=80):
    """Poses (N, 4, 4) on a rising spiral, and stamps."""
    turns = [rigid.rotation_matrix(np.array([0, 0, np.sin(0.02 * i), np.cos(0.02 * i)]))
             for i in range(count)]  # fmt: skip
    places = [(np.cos(0.1 * i), np.sin(0.1 * i), 0.02 * i) for i in range(count)]
    poses = np.stack([rigid.from_parts(R, np.array(p)) for R, p in zip(turns, places)])
    return poses, 10**18 + STEP_NS * np.arange(count, dtype=np.int64)


def tracked(poses, stamps, seconds=0.05):
    return [TrackedImage(int(s), seconds, T) for s, T in zip(stamps, poses)]


def noisy(poses, sigma, seed=0):
    moved = poses.copy()
    moved[:, :3, 3] += np.random.default_rng(seed).normal(0, sigma, (len(poses), 3))
    return moved


def test_agrees_with_evo(tmp_path):
    truth, stamps = walk()
    mine = noisy(truth, 0.03)
    live = score_images(tracked(mine, stamps), stamps, truth)
    for name, poses in (("mine", mine), ("truth", truth)):
        records = [TrajectoryPose(i, int(s), T, np.eye(6), 1.0, 0, False)
                   for i, (s, T) in enumerate(zip(stamps, poses))]  # fmt: skip
        write_trajectory(tmp_path / f"{name}.txt", records)
    theirs, _, _ = score_trajectory(tmp_path / "mine.txt", tmp_path / "truth.txt")
    assert live.ate_rmse == pytest.approx(theirs.ate_rmse, rel=1e-4)
    assert live.path_length == pytest.approx(theirs.path_length, rel=1e-6)


def test_a_similarity_costs_nothing_and_lost_images_are_counted():
    truth, stamps = walk()
    moved = rigid.from_parts(truth[9][:3, :3], np.array([1.0, 2, 3])) @ truth
    moved[:, :3, 3] *= 0.3
    images = tracked(moved, stamps, 0.08)
    images[10] = TrackedImage(images[10].stamp_ns)
    live = score_images(images, stamps, truth)
    assert live.ate_rmse < 1e-9 and live.rpe_translation < 1e-9
    assert live.share == pytest.approx(79 / 80) and live.images == 80
    assert live.latency_median == live.latency_p95 == pytest.approx(0.08)
    fixed = score_images(images, stamps, truth, fixed_scale=True)
    assert fixed.ate_rmse > 0.1


def test_drift_over_a_second_is_what_the_motion_errs_in_a_second():
    truth, stamps = walk()
    drifting = truth.copy()
    drifting[:, 0, 3] += 0.02 * np.arange(len(truth))  # 0.2 a second
    live = score_images(tracked(drifting, stamps), stamps, truth, fixed_scale=True)
    assert live.rpe_translation == pytest.approx(0.2, rel=0.2)
    assert live.largest_step[0] == pytest.approx(0.02, rel=0.2)


def test_without_ground_truth_at_its_times_nothing_is_scored():
    truth, stamps = walk()
    with pytest.raises(BadInput, match="ground truth"):
        score_images(tracked(truth, stamps + 10**12), stamps, truth)


def test_the_command_tells_it(tmp_path, capsys):
    truth, stamps = walk()
    records = [TrajectoryPose(i, int(s), T, np.eye(6), 1.0, 0, False)
               for i, (s, T) in enumerate(zip(stamps, truth))]  # fmt: skip
    write_trajectory(tmp_path / "truth.txt", records)
    write_tracked(tmp_path / "tracked.csv", tracked(noisy(truth, 0.01), stamps))
    arguments = ["--tracked", tmp_path / "tracked.csv", "--groundtruth", tmp_path / "truth.txt"]
    assert main(["evaluate", *map(str, arguments)]) == 0
    assert "100.0 % of 80 images with a pose" in capsys.readouterr().out
