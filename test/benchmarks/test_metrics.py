"""Scores against their definitions and against the library evo."""

import numpy as np
import pytest

from scal3r_ros.benchmarks import metrics
from scal3r_ros.benchmarks.clouds import cloud_scores, icp, thinned
from scal3r_ros.mapping.sim3 import Sim3


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """A drive of 900 m in 900 frames, with turns."""
    count = 900
    yaw = np.cumsum(0.02 * np.sin(np.arange(count) / 40.0))
    turns = np.stack([0 * yaw, yaw, 0.02 * np.sin(np.arange(count) / 9.0)], axis=1)
    poses = Sim3.exp(np.c_[np.zeros((count, 3)), turns, np.zeros(count)]).matrix()
    steps = poses[:, :3, 2] * 1.01
    poses[:, :3, 3] = np.cumsum(steps, axis=0)
    return poses


def shaken(poses: np.ndarray, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    noise = random.normal(0, [0.3, 0.3, 0.3, 0.01, 0.01, 0.01], (len(poses), 6))
    return poses @ Sim3.exp(np.c_[noise, np.zeros(len(poses))]).matrix()


def test_truth_scores_nothing_also_in_another_frame_and_scale(truth):
    S = Sim3.exp(np.array([30.0, -4, 7, 0.5, -1.0, 0.3, 0.9]))
    aligned = metrics.align(S.move_pose(truth), truth)
    assert metrics.ate(aligned) < 1e-9
    assert max(metrics.rpe(aligned)) < 1e-6
    for found in (metrics.kitti_segments(aligned), metrics.vbr_segments(aligned)):
        assert found.count > 300 and max(found.rte, found.rre) < 1e-6
    assert metrics.kitti_segments(aligned).lengths == tuple(range(100, 801, 100))
    assert metrics.pose_auc(aligned, 5) == pytest.approx(1.0)
    np.testing.assert_allclose(aligned.S_truth_map.scale, 1 / S.scale)


def test_noise_scores_its_spread():
    random = np.random.default_rng(1)
    truth = np.tile(np.eye(4), (4000, 1, 1))
    truth[:, :3, 3] = random.uniform(-50, 50, (4000, 3))
    estimate = truth.copy()
    estimate[:, :3, 3] += random.normal(0, 0.1, (4000, 3))
    found = metrics.ate(metrics.align(estimate, truth))
    assert found == pytest.approx(0.1 * np.sqrt(3), rel=0.03)


def test_the_same_numbers_as_evo(truth):
    from evo.core import metrics as evo_metrics
    from evo.core.trajectory import PoseTrajectory3D

    estimate = Sim3.exp(np.array([3.0, 1, 2, 0.2, 0.1, 0.4, -0.7])).move_pose(shaken(truth))
    aligned = metrics.align(estimate, truth)
    stamps = np.arange(len(truth)) * 0.1
    theirs = [PoseTrajectory3D(poses_se3=list(p), timestamps=stamps) for p in (truth, estimate)]
    theirs[1].align(theirs[0], correct_scale=True)

    def evo(kind, relation):
        metric = kind(evo_metrics.PoseRelation[relation])
        metric.process_data(tuple(theirs))
        return metric.get_statistic(evo_metrics.StatisticsType.rmse)

    ours = (metrics.ate(aligned), *metrics.rpe(aligned))
    expected = (
        evo(evo_metrics.APE, "translation_part"),
        evo(evo_metrics.RPE, "translation_part"),
        evo(evo_metrics.RPE, "rotation_angle_deg"),
    )
    np.testing.assert_allclose(ours, expected, atol=1e-9, rtol=0)


def test_segments_against_a_plain_loop(truth):
    aligned = metrics.align(shaken(truth), truth)
    along = np.concatenate(
        [[0], np.cumsum(np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1))]
    )
    shifts, turns = [], []
    for length in (100.0, 300.0):
        for first in range(len(truth)):
            last = next((i for i in range(len(truth)) if along[i] > along[first] + length), None)
            if last is None:
                continue
            found = np.linalg.inv(aligned.poses[first]) @ aligned.poses[last]
            error = np.linalg.inv(found) @ np.linalg.inv(truth[first]) @ truth[last]
            shifts.append(np.linalg.norm(error[:3, 3]) / length)
            cosine = np.clip((np.trace(error[:3, :3]) - 1) / 2, -1, 1)
            turns.append(np.degrees(np.arccos(cosine)) / length)
    found = metrics.segments(aligned, (100.0, 300.0, 5000.0))
    assert (found.lengths, found.count) == ((100.0, 300.0), len(shifts))
    np.testing.assert_allclose(found.rte, 100 * np.mean(shifts))
    np.testing.assert_allclose(found.rre, 100 * np.mean(turns), rtol=1e-6)


def test_auc_counts_pairs_below_each_degree():
    """One pair, off by 2.5 degrees: below 3, 4 and 5 of five degrees."""
    truth = np.tile(np.eye(4), (3, 1, 1))
    truth[:, 2, 3] = (0.0, 1.0, 2.0)
    estimate = truth.copy()
    estimate[2] = truth[2] @ Sim3.exp(np.r_[0, 0, 0, 0, np.radians(2.5), 0, 0]).matrix()
    found = metrics.pose_auc(metrics.align(estimate, truth), 5)
    assert found == pytest.approx((5 * 1 + 2 * 3) / 15)


@pytest.mark.parametrize("poses", [2, 5])
def test_what_cannot_be_aligned_has_no_score(poses):
    still = np.tile(np.eye(4), (poses, 1, 1))
    with pytest.raises(metrics.NoScore):
        metrics.align(still, still)


def test_clouds_score_by_distance_and_icp_is_told_apart():
    random = np.random.default_rng(0)
    truth = np.c_[random.uniform(0, 10, (6000, 2)), np.zeros(6000)]
    truth = np.concatenate([truth, truth[:, [0, 2, 1]], truth[:, [2, 0, 1]]])
    moved = truth + (0.03, -0.02, 0.04)
    found = cloud_scores(moved, truth, voxel=0.05, tau=0.05, icp_reach=0.5)
    assert found["pose"]["accuracy"] > found["icp"]["accuracy"] < 0.03
    for scores in (found["pose"], found["icp"]):
        assert scores["cd_sum"] == pytest.approx(2 * scores["cd_mean"])
    np.testing.assert_allclose(icp(moved, truth, 0.5).translation, (-0.03, 0.02, -0.04), atol=0.02)
    assert len(np.unique(np.floor(thinned(truth, 0.5) / 0.5), axis=0)) == len(thinned(truth, 0.5))
