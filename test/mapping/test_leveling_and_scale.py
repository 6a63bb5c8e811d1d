"""Which way is up and how long is a metre: from a known street and known measurements."""

from dataclasses import asdict

import numpy as np
import pytest
from clouds import prediction
from oracle import CAMERA_HEIGHT, OracleReconstructor, Spoil, drive

from scal3r_ros.config import ScaleConfig
from scal3r_ros.mapping.leveling import (
    LevelUnknown,
    fit_floor,
    map_from_chunk,
    up_from_first_camera,
    up_from_gravity,
)
from scal3r_ros.mapping.scale import ScaleEstimator, depth_ratio
from scal3r_ros.mapping.sim3 import rotation_exp
from scal3r_ros.records import Chunk


@pytest.fixture(scope="module")
def street():
    """A straight drive, cut with noise; the city, the prediction and its unit in metres."""
    city = drive(frames=40, length=33.0, width=96, height=40, wobble=0.01, route="E")
    oracle = OracleReconstructor(city, Spoil(depth_noise=0.02, outliers=0.05))
    chunk = Chunk(0, 0, tuple(city.frame(i) for i in range(40)))
    return city, oracle.reconstruct(chunk), oracle.units[0]


def true_up(city, side) -> np.ndarray:
    """World z in chunk coordinates."""
    T_world_chunk = city.T_world_camera[0] @ np.linalg.inv(side.T_chunk_camera[0])
    return T_world_chunk[:3, :3].T @ [0.0, 0.0, 1.0]


def test_level_first_camera_gives_ros_axes(street):
    _, side, _ = street
    S_map_chunk = map_from_chunk(
        side.T_chunk_camera[0], up_from_first_camera(side.T_chunk_camera[0])
    )
    first = S_map_chunk.move_pose(side.T_chunk_camera[0])
    np.testing.assert_allclose(first[:3, 3], 0, atol=1e-12)
    np.testing.assert_allclose(first[:3, 2], [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(first[:3, 1], [0, 0, -1], atol=1e-9)


def test_without_levelling_the_map_has_the_first_cameras_axes(street):
    _, side, _ = street
    first = map_from_chunk(side.T_chunk_camera[0], None).move_pose(side.T_chunk_camera[0])
    np.testing.assert_allclose(first, np.eye(4), atol=1e-12)


def test_the_floor_tells_up_and_height(street):
    city, side, unit = street
    floor = fit_floor(side)
    assert np.degrees(np.arccos(floor.normal @ true_up(city, side))) < 0.5
    height = np.median(city.T_world_camera[:, 2, 3])
    assert floor.height * unit == pytest.approx(height, rel=0.03)
    assert height == pytest.approx(CAMERA_HEIGHT, abs=0.05)
    assert floor.inliers > 0.3


def test_a_tilted_camera_is_levelled_by_the_floor():
    city = drive(frames=30, length=25.0, width=96, height=48, wobble=0.0, route="E")
    tilt = np.eye(4)
    tilt[:3, :3] = rotation_exp(np.array([-0.25, 0.0, 0.1]))
    tilted = type(city)(city.T_world_camera @ tilt, city.block, 96, 48, city.focal)
    side = OracleReconstructor(tilted).reconstruct(
        Chunk(0, 0, tuple(tilted.frame(i) for i in range(30)))
    )
    S_map_chunk = map_from_chunk(side.T_chunk_camera[0], fit_floor(side).normal)
    np.testing.assert_allclose(S_map_chunk.rotation @ true_up(tilted, side), [0, 0, 1], atol=0.01)
    forward = S_map_chunk.move_pose(side.T_chunk_camera[0])[:3, 2]
    assert abs(forward[1]) < 0.01
    assert forward[0] > 0.9


def test_gravity_readings_are_averaged_in_the_chunk(street):
    city, side, _ = street
    random = np.random.default_rng(0)
    up_world = np.array([0.0, 0.0, 9.81])
    readings = [
        T[:3, :3].T @ up_world + 0.3 * random.standard_normal(3) for T in city.T_world_camera
    ]
    up = up_from_gravity(side.T_chunk_camera, readings)
    assert np.degrees(np.arccos(up @ true_up(city, side))) < 1.0


def test_what_cannot_be_levelled_is_refused():
    with pytest.raises(LevelUnknown, match="no gravity measurement"):
        up_from_gravity([], [])
    with pytest.raises(LevelUnknown, match="contradict"):
        up_from_gravity([np.eye(4)] * 2, [np.array([0, 1.0, 0]), np.array([0, -1.0, 0])])
    with pytest.raises(LevelUnknown):
        fit_floor(prediction())
    blind = prediction()
    blind.depth[:] = np.nan
    with pytest.raises(LevelUnknown, match="no valid depth"):
        fit_floor(blind)


def test_camera_height_and_known_distance():
    by_height = ScaleEstimator(ScaleConfig(source="camera_height", camera_height=1.65))
    for height in (0.16, 0.165, 0.17):
        by_height.observe_camera_height(height, 0.002)
    assert by_height.estimate.value == pytest.approx(10.0, rel=0.01)
    by_path = ScaleEstimator(ScaleConfig(source="known_distance", known_distance=30.0))
    by_path.observe_path(3.0)
    assert by_path.estimate.value == pytest.approx(10.0)
    assert np.sqrt(by_path.estimate.variance) == pytest.approx(0.2, rel=0.1)


def test_measured_depth_with_holes_and_outliers():
    random = np.random.default_rng(2)
    depth = random.uniform(0.3, 3.0, (40, 60)).astype(np.float32)
    metres = 7.0 * 0.5 * depth * np.exp(0.02 * random.standard_normal(depth.shape))
    metres[:10] = 0.0
    metres[10:15] *= 3.0
    estimator = ScaleEstimator(ScaleConfig(source="depth"))
    ratio = depth_ratio(metres, depth)
    estimator.observe_depth([ratio, ratio, 1.01 * ratio], unit=0.5)
    assert estimator.estimate.value == pytest.approx(7.0, rel=0.02)
    assert not estimator.estimate.frozen and estimator.ready
    assert depth_ratio(np.zeros_like(depth), depth) is None


def test_nothing_is_known_until_measured_and_sources_do_not_mix():
    none = ScaleEstimator(ScaleConfig())
    none.observe_camera_height(0.2, 0.01)
    none.observe_path(3.0)
    assert not none.estimate.known
    assert none.estimate.source == "none"
    assert not none.ready
    with pytest.raises(ValueError, match="not known"):
        none.freeze()


def test_a_frozen_scale_never_changes_and_says_what_was_applied():
    estimator = ScaleEstimator(ScaleConfig(source="known_distance", known_distance=10.0))
    estimator.observe_path(5.0)
    assert (estimator.estimate.value, estimator.estimate.applied) == (2.0, 1.0)
    frozen = estimator.freeze()
    assert frozen.frozen and frozen.applied == 2.0
    assert frozen.value == 1.0, "a unit of the rescaled map is a metre"
    assert np.sqrt(frozen.variance) == pytest.approx(0.02)
    estimator.observe_path(1.0)
    assert estimator.estimate is frozen
    assert not estimator.ready
    later = ScaleEstimator(ScaleConfig(source="known_distance"))
    later.restore(asdict(frozen), estimator.state())
    assert later.estimate == frozen


def test_frozen_scales_of_older_versions_are_read():
    """They named what had been applied as if it were still to come."""
    later = ScaleEstimator(ScaleConfig(source="odometry"))
    old = {"source": "odometry", "value": 10.0, "variance": 0.25, "frozen": True}
    later.restore(old, {"ratios": np.array([[10.0, 0.05]])})
    assert (later.estimate.value, later.estimate.applied) == (1.0, 10.0)
    assert later.estimate.variance == pytest.approx(0.05**2)


def test_disagreeing_ratios_are_not_frozen():
    estimator = ScaleEstimator(ScaleConfig(source="camera_height", camera_height=1.0))
    for height in (0.1, 0.9, 0.3, 2.0):
        estimator.observe_camera_height(height, 0.001)
    assert estimator.estimate.known
    assert not estimator.ready
