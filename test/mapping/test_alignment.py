"""Sim(3) between chunks: the truth is recovered, VGGT-Long's recipe is reproduced, failures are
named."""

from dataclasses import replace

import numpy as np
import pytest
from clouds import TRUTH, error, prediction, seen_from
from scipy.spatial.transform import Rotation

from scal3r_ros.config import AlignmentConfig
from scal3r_ros.mapping.alignment import align
from scal3r_ros.mapping.odometry_bridge import bridge_by_odometry
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.similarity_fit import DegenerateOverlap, weighted_similarity
from scal3r_ros.mapping.vggt_long import sim3_wet
from scal3r_ros.records import ChunkPrediction

CONFIG = AlignmentConfig()


def with_outliers(current: ChunkPrediction, share: float, seed: int = 1) -> ChunkPrediction:
    random = np.random.default_rng(seed)
    depth = current.depth.copy()
    wrong = random.random(depth.shape) < share
    depth[wrong] *= random.uniform(1.5, 8.0, int(wrong.sum())).astype(np.float32)
    return replace(current, depth=depth)


def test_noise_free_chunks_give_the_true_similarity():
    previous = prediction()
    found = align(previous, seen_from(TRUTH, previous), CONFIG)
    assert found.accepted
    assert found.method == "depth"
    assert error(found.S_previous_current).max() < 1e-6
    assert found.inliers == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_thirty_per_cent_gross_outliers_leave_the_scale(seed):
    previous = prediction(seed=seed)
    current = with_outliers(seen_from(TRUTH, previous), 0.3, seed)
    found = align(previous, current, CONFIG)
    assert found.accepted
    assert abs(found.S_previous_current.scale / TRUTH.scale - 1) < 0.005
    assert error(found.S_previous_current).max() < 1e-5


def test_noise_and_outliers_together():
    previous = prediction(frames=12)
    random = np.random.default_rng(8)
    noise = np.exp(0.02 * random.standard_normal(previous.depth.shape)).astype(np.float32)
    current = seen_from(TRUTH, previous)
    current = with_outliers(replace(current, depth=current.depth * noise), 0.3)
    found = align(previous, current, CONFIG)
    assert abs(found.S_previous_current.scale / TRUTH.scale - 1) < 0.005
    assert error(found.S_previous_current)[3:6].max() < 0.002


def test_an_outlying_region_that_agrees_with_itself_does_not_win():
    previous = prediction(frames=10)
    current = seen_from(TRUTH, previous)
    depth = current.depth.copy()
    depth[:, :, :20] *= 1.6
    found = align(previous, replace(current, depth=depth), CONFIG)
    assert error(found.S_previous_current).max() < 1e-4


def rough_depth(current: ChunkPrediction, bend: float = 0.3) -> ChunkPrediction:
    """Depth that is off by a slope across the image, as that of a weak network is."""
    slope = np.linspace(-bend, bend, current.depth.shape[2], dtype=np.float32)
    return replace(current, depth=current.depth * np.exp(slope))


def test_poses_give_the_true_similarity_whatever_the_depth():
    previous = prediction()
    current = rough_depth(seen_from(TRUTH, previous))
    wide = replace(CONFIG, huber_delta=0.5, max_residual=0.5)
    by_points, by_poses = (
        align(previous, current, replace(wide, estimator=name)) for name in ("points", "poses")
    )
    assert (by_points.method, by_poses.method) == ("depth", "poses")
    assert error(by_poses.S_previous_current)[3:6].max() < 1e-6
    assert error(by_points.S_previous_current)[3:6].max() > 0.03
    assert error(by_poses.S_previous_current)[6] < 0.02


def test_one_wrong_pose_is_refused_and_the_pixels_outvote_it():
    previous = prediction()
    current = seen_from(TRUTH, previous)
    turned = current.T_chunk_camera.copy()
    turned[2, :3, :3] = turned[2, :3, :3] @ Rotation.from_euler("y", 90, degrees=True).as_matrix()
    config = replace(CONFIG, estimator="poses")
    found = align(previous, replace(current, T_chunk_camera=turned), config)
    assert found.attempts == ("poses: few_inliers",)
    assert found.method == "depth"
    assert error(found.S_previous_current).max() < 1e-5


def test_poses_are_not_asked_by_vggt_longs_recipe():
    previous = prediction()
    config = AlignmentConfig(method="vggt_long", estimator="poses")
    assert align(previous, rough_depth(seen_from(TRUTH, previous)), config).method == "depth"


def test_vggt_longs_recipe_against_a_plain_reading_of_it():
    previous = prediction(frames=3)
    random = np.random.default_rng(9)
    current = seen_from(TRUTH, previous, confidence=previous.confidence[::-1].copy())
    noise = np.exp(0.02 * random.standard_normal(previous.depth.shape)).astype(np.float32)
    current = with_outliers(replace(current, depth=current.depth * noise), 0.05)
    found = align(previous, current, AlignmentConfig(method="vggt_long")).S_previous_current
    scale, rotation, translation = plain_sim3_wet(current, previous)
    assert found.scale == pytest.approx(scale, rel=2e-5)
    np.testing.assert_allclose(found.rotation, rotation, atol=2e-5)
    np.testing.assert_allclose(found.translation, translation, atol=2e-3)


def plain_sim3_wet(source: ChunkPrediction, target: ChunkPrediction):
    """The recipe, step by step over single points, in double precision."""
    pairs = []
    for f in range(len(source.frame_ids)):
        for v in range(source.depth.shape[1]):
            for u in range(source.depth.shape[2]):
                ends = []
                for side in (source, target):
                    ray = np.linalg.inv(side.intrinsics[f]) @ [u + 0.5, v + 0.5, 1.0]
                    w2c = np.linalg.inv(side.T_chunk_camera[f])
                    ends.append(w2c[:3, :3].T @ (ray * side.depth[f, v, u] - w2c[:3, 3]))
                pairs.append((*ends, source.confidence[f, v, u], target.confidence[f, v, u]))
    x, y, cx, cy = (np.array(column, dtype=float) for column in zip(*pairs))
    tau = 0.1 * min(np.median(cx), np.median(cy))
    keep = (cx > tau) & (cy > tau)
    x, y, base = x[keep], y[keep], np.sqrt(cx[keep] * cy[keep])

    def solve(weights):
        w = (weights / weights.sum())[:, None]
        mx, my = (w * x).sum(0), (w * y).sum(0)
        s = np.sqrt((w * (y - my) ** 2).sum() / (w * (x - mx) ** 2).sum())
        u, _, vt = np.linalg.svd((w * s * (x - mx)).T @ (y - my))
        r = vt.T @ np.diag([1, 1, np.linalg.det(vt.T @ u.T)]) @ u.T
        return s, r, my - s * r @ mx

    s, r, t = solve(base)
    previous_cost = np.inf
    for _ in range(5):
        residual = np.linalg.norm(y - (s * x @ r.T + t), axis=1)
        huber = np.minimum(1.0, 0.1 / residual)
        loss = np.where(residual <= 0.1, residual**2 / 2, 0.1 * (residual - 0.05))
        cost = (base * loss).sum()
        new = solve(base * huber)
        angle = np.degrees(Rotation.from_matrix(r.T @ new[1]).magnitude())
        if abs(new[0] - s) + np.linalg.norm(new[2] - t) < 1e-9 and angle < 0.1:
            break
        if abs(previous_cost - cost) < 1e-9 * previous_cost:
            break
        (s, r, t), previous_cost = new, cost
    return s, r, t


def test_vggt_longs_recipe_runs_in_single_precision():
    random = np.random.default_rng(2)
    points = random.normal(size=(5000, 3)).astype(np.float32)
    weights = random.uniform(1, 2, 5000).astype(np.float32)
    moved = TRUTH.apply(points)
    assert moved.dtype == np.float32
    fit = sim3_wet(points, moved, weights, weights)
    assert error(fit.S_target_source).max() < 1e-5
    assert fit.residuals.dtype == np.float32


def test_scale_is_the_ratio_of_the_radii_and_therefore_symmetric():
    random = np.random.default_rng(3)
    source, target = random.normal(size=(2, 400, 3))
    weights = random.uniform(1, 2, 400)
    there = weighted_similarity(source, target, weights)
    back = weighted_similarity(target, source, weights)
    assert there.scale * back.scale == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose((there @ back).rotation, np.eye(3), atol=1e-12)


def test_frames_are_matched_by_id_and_not_by_position():
    previous = prediction(frames=8)
    current = seen_from(TRUTH, previous)
    kept = [1, 4, 6]
    picked = replace(
        current,
        frame_ids=tuple(current.frame_ids[i] for i in kept),
        **{
            name: getattr(current, name)[kept]
            for name in ("T_chunk_camera", "intrinsics", "depth", "confidence", "rgb")
        },
    )
    assert error(align(previous, picked, CONFIG).S_previous_current).max() < 1e-6


def failing(name: str) -> tuple[ChunkPrediction, ChunkPrediction]:
    previous = prediction()
    current = seen_from(TRUTH, previous)
    random = np.random.default_rng(4)
    shuffled = random.permutation(current.depth.ravel()).reshape(current.depth.shape)
    turned = current.T_chunk_camera.copy()
    turned[:, :3, :3] = turned[:, :3, :3] @ Rotation.from_euler("z", 170, degrees=True).as_matrix()
    changes = {
        "no_overlap": {"frame_ids": tuple(range(50, 56))},
        "no_valid_pixels": {"depth": np.full_like(current.depth, np.nan)},
        "few_inliers": {"depth": shuffled},
        "scale_jump": {
            "depth": current.depth * 9,
            "T_chunk_camera": Sim3(9.0, np.eye(3), np.zeros(3)).move_pose(current.T_chunk_camera),
        },
        "rotation_disagreement": {"T_chunk_camera": turned[::-1].copy()},
    }
    return previous, replace(current, **changes[name])


@pytest.mark.parametrize("name", ["no_overlap", "no_valid_pixels", "few_inliers", "scale_jump"])
def test_a_failed_gate_is_named_with_every_attempt(name):
    found = align(*failing(name), CONFIG)
    assert not found.accepted
    assert found.method == "none"
    assert found.failure == name
    assert found.attempts[0] == f"depth: {name}"
    assert found.attempts[-1].startswith("rigid: ")


def test_point_head_is_tried_when_depth_fails():
    previous, broken = failing("few_inliers")
    intact = seen_from(TRUTH, previous)
    points = [flat_points(side) for side in (previous, intact)]
    found = align(replace(previous, points=points[0]), replace(broken, points=points[1]), CONFIG)
    assert found.accepted
    assert found.method == "points"
    assert found.attempts == ("depth: few_inliers",)
    assert error(found.S_previous_current).max() < 1e-5


def flat_points(side: ChunkPrediction) -> np.ndarray:
    from scal3r_ros.mapping.camera import unproject

    return unproject(side.depth, side.intrinsics, side.T_chunk_camera)


def test_odometry_bridges_chunks_without_common_frames():
    previous, current = prediction(frames=10), prediction(1, 10, first=20, seed=3)
    S_odom = {0: Sim3.exp(np.r_[0, 0, 0, 0.1, 0.2, 0.3, 0.5]), 1: TRUTH}
    S_odom[1] = S_odom[0] @ TRUTH
    odometry = {}
    for side, S in zip((previous, current), S_odom.values()):
        odometry.update(zip(side.frame_ids, S.move_pose(side.T_chunk_camera)))
    found = bridge_by_odometry(previous, current, odometry)
    assert found.accepted
    assert found.weak
    assert error(found.S_previous_current).max() < 1e-9
    parked = {frame_id: np.eye(4) for frame_id in odometry}
    assert bridge_by_odometry(previous, current, parked).failure == "odometry_without_motion"
    assert bridge_by_odometry(previous, current, {}).failure == "odometry_without_motion"


def test_covariance_grows_with_the_disagreement_of_the_overlap():
    previous = prediction(frames=10)
    current = seen_from(TRUTH, previous)
    calm = align(previous, current, CONFIG)
    random = np.random.default_rng(6)
    shaken = current.T_chunk_camera.copy()
    shaken[:, :3, 3] += 0.3 * random.standard_normal((10, 3))
    restless = align(previous, replace(current, T_chunk_camera=shaken), CONFIG)
    assert np.trace(restless.covariance[:3, :3]) > 4 * np.trace(calm.covariance[:3, :3])
    assert restless.sigma[0] > 2 * calm.sigma[0]
    assert np.linalg.eigvalsh(restless.covariance).min() > 0


def test_degenerate_matches_are_refused():
    point = np.ones((10, 3))
    with pytest.raises(DegenerateOverlap, match="coincide"):
        weighted_similarity(point, point, np.ones(10))
    with pytest.raises(DegenerateOverlap, match="total weight"):
        weighted_similarity(point, point, np.zeros(10))


@pytest.mark.parametrize("method", ["robust", "vggt_long"])
def test_every_iteration_leaves_less_of_what_outliers_and_noise_have_moved(method):
    previous = prediction(frames=3)
    noise = np.random.default_rng(8).standard_normal(previous.depth.shape)
    current = seen_from(TRUTH, previous)
    noisy = current.depth * np.exp(0.05 * noise).astype(np.float32)
    current = with_outliers(replace(current, depth=noisy), 0.3)
    off = []
    for iterations in (0, 1, 5):
        found = align(previous, current, AlignmentConfig(method=method, iterations=iterations))
        off.append(error(found.S_previous_current).max())
    assert off[0] > off[1]
    assert off[1] > off[2] if method == "vggt_long" else off[1] == pytest.approx(off[2], rel=0.01)


@pytest.mark.parametrize("limit", [500, 2000])
def test_matches_are_thinned_to_about_what_is_asked_for(limit):
    previous = prediction()
    current = seen_from(TRUTH, previous)
    everything = align(previous, current, AlignmentConfig(max_points=0))
    some = align(previous, current, AlignmentConfig(max_points=limit))
    assert everything.matches == previous.depth.size > 2 * limit
    assert limit / 4 < some.matches <= limit
    assert error(some.S_previous_current).max() < 1e-6


def test_limits_of_the_gate_are_those_of_the_options():
    previous = prediction()
    current = with_outliers(seen_from(TRUTH, previous), 0.3)
    step = float(abs(np.log(TRUTH.scale)))
    strict = {
        "few_inliers": AlignmentConfig(min_inliers=0.8),
        "scale_jump": AlignmentConfig(max_log_scale=0.9 * step),
    }
    for failure, config in strict.items():
        found = align(previous, current, config)
        assert not found.accepted
        assert all(attempt.endswith(failure) for attempt in found.attempts), found.attempts
    assert align(previous, current, AlignmentConfig(min_inliers=0.6)).accepted
    assert align(previous, current, AlignmentConfig(max_log_scale=1.1 * step)).accepted
