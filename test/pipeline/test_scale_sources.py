"""Metres from several sources through the whole mapper: accelerometer, fixes, both, and a
contradiction."""

import numpy as np
import pytest
from mapper_runs import config, run
from oracle import OracleReconstructor
from test_imu_scale import UNIT, record

from scal3r_ros.mapping.gnss import Fix, earth_from_enu
from scal3r_ros.mapping.scale import ScaleEstimator, combined
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.records import ChunkPrediction, Frame

HEIGHT, WIDTH = 12, 16


class WalkReconstructor(OracleReconstructor):
    """Knows the poses of a walk, in one unit; the walls are always as far away."""

    def __init__(self, poses):
        self.poses, self.version = poses, 0

    def reconstruct(self, chunk, contribute=True):
        ids = chunk.frame_ids
        T = np.linalg.inv(self.poses[ids[0]]) @ np.stack([self.poses[i] for i in ids])
        columns = np.linspace(1.0, 2.0, WIDTH, dtype=np.float32)
        depth = np.tile(columns, (len(ids), HEIGHT, 1))
        K = np.array([[WIDTH, 0, WIDTH / 2], [0, WIDTH, HEIGHT / 2], [0, 0, 1.0]])
        return ChunkPrediction(
            chunk.index, ids, T, np.tile(K, (len(ids), 1, 1)), depth, np.ones_like(depth),
            np.zeros((*depth.shape, 3), np.uint8),
        )  # fmt: skip


def walked(seed=0, odometry_factor=None, seconds=40.0, **options):
    """A mapper at the end of a walk with a phone, and its events."""
    stamps, poses, readings = record(seed, seconds)
    wanted = {"chunk__size": 32, "chunk__overlap": 4, "gate__max_gap": 0.0}
    mapper = Mapper(config(**wanted | options), WalkReconstructor(poses))
    mapper.set_camera_mount(np.eye(4))
    for ns, force, rate in zip(readings.stamps_ns, readings.force, readings.turn_rate):
        mapper.observe_imu(int(ns), np.concatenate([force, rate, readings.lever]))
    for ns, T in zip(stamps, poses):
        if odometry_factor:
            moved = T.copy()
            moved[:3, 3] *= UNIT * odometry_factor
            mapper.observe_odometry(int(ns), moved)
    events = []
    for index, ns in enumerate(stamps):
        rgb = np.full((HEIGHT, WIDTH, 3), index % 250, np.uint8)
        for update in mapper.add(Frame(index, int(ns), rgb)):
            events += update.events
    for update in mapper.flush():
        events += update.events
    return mapper, events


def test_a_phone_makes_a_walk_metric():
    mapper, events = walked(scale__source="imu")
    assert mapper.scale.frozen and mapper.scale.source == "imu"
    assert mapper.scale.applied == pytest.approx(UNIT, rel=0.03)
    assert "scale_frozen" in [event.name for event in events]


def test_odometry_and_phone_together_are_within_one_per_cent():
    mapper, events = walked(1, 1.0, scale__source="odometry", scale__also="imu")
    assert mapper.scale.source in ("odometry+imu", "imu+odometry")
    assert mapper.scale.applied == pytest.approx(UNIT, rel=0.01)
    assert "scale_contradiction" not in [event.name for event in events]


def test_wheels_of_another_size_contradict_the_phone():
    mapper, events = walked(1, 1.3, scale__source="odometry", scale__also="imu")
    (told,) = [event.message for event in events if event.name == "scale_contradiction"]
    assert "imu says" in told and "odometry says" in told and "check units" in told
    assert not mapper.scale.frozen


def test_a_saved_estimate_goes_on(tmp_path):
    mapper, _ = walked(2, seconds=26.0, scale__source="imu", scale__max_relative_sigma=0.0)
    before = mapper.scale
    assert before.known and not before.frozen
    mapper.save(tmp_path)
    later = Mapper(mapper.config, WalkReconstructor(mapper.reconstructor.poses))
    later.load(tmp_path)
    kept = later.live_map.scale_and_level.scale
    assert later.scale == before
    assert isinstance(kept, ScaleEstimator) and kept.state().keys() == (
        mapper.live_map.scale_and_level.scale.state().keys()
    )


def test_sources_are_weighed_by_what_they_are_uncertain_of():
    value, sigma = combined([(2.0, 0.01), (2.1, 0.1)])
    assert value == pytest.approx(2.001, abs=5e-4) and sigma == pytest.approx(0.00995, rel=1e-2)
    value, sigma = combined([(2.0, 0.01), (2.2, 0.01)])
    assert value == pytest.approx(np.sqrt(4.4)) and sigma > 0.04


def test_fixes_give_metres_and_the_place_on_earth(street):
    origin = Fix(48.1, 11.6, 500.0)
    T_earth_enu = earth_from_enu(origin)
    mapper = Mapper(config(scale__source="gnss"), OracleReconstructor(street))
    east = street.T_world_camera[:, :3, 3]
    for index in range(len(street)):
        mapper.observe_fix(street.stamp_ns(index), geodetic(origin, east[index]))
    run(street, mapper)
    assert mapper.scale.frozen and mapper.scale.source == "gnss"
    path = np.linalg.norm(np.diff(mapper.live_map.trajectory.matrices(
        mapper.live_map.graph.nodes)[:, :3, 3], axis=0), axis=1).sum()  # fmt: skip
    assert path == pytest.approx(street.path_length(), rel=0.01)
    T_earth_map = mapper.live_map.map_in_earth()
    last = mapper.trajectory()[-1]
    found = T_earth_map @ last.T_map_camera[:, 3]
    wanted = T_earth_enu @ np.append(east[last.frame_id], 1.0)
    assert np.linalg.norm(found - wanted) < 1.0


def geodetic(origin, east_north_up):
    """Degrees of a place near `origin`, by the radii of curvature of WGS 84 there."""
    square, radius = 0.00669437999014, 6378137.0
    sine = np.sin(np.radians(origin.latitude))
    across = radius / np.sqrt(1 - square * sine**2)
    along = radius * (1 - square) / (1 - square * sine**2) ** 1.5
    north = np.degrees(east_north_up[1] / along)
    east = np.degrees(east_north_up[0] / (across * np.cos(np.radians(origin.latitude))))
    return np.array(
        [origin.latitude + north, origin.longitude + east, origin.altitude + east_north_up[2]]
    )
