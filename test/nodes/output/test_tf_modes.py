"""Arithmetic of the transforms, against motions whose result is known by hand."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scal3r_ros import rigid
from scal3r_ros.nodes.base.node_config import TfConfig
from scal3r_ros.nodes.output.tf_modes import (
    Edge,
    average,
    broadcast_edges,
    map_to_base,
    map_to_odom,
    other_parent,
    slew,
)
from scal3r_ros.nodes.output.visual_odometry import VisualOdometry
from scal3r_ros.records import TrajectoryPose

OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""Body axes of an optical frame: its z is forward x, its x is right -y, its y is down -z."""


def pose(x=0.0, y=0.0, z=0.0, yaw=0.0, rotation=None):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw).as_matrix() if rotation is None else rotation
    T[:3, 3] = x, y, z
    return T


def random_pose(rng, spread=5.0):
    return pose(*rng.normal(0, spread, 3), rotation=Rotation.random(random_state=rng).as_matrix())


def test_fixed_rotation_is_the_one_of_the_ros_convention():
    quaternion = Rotation.from_matrix(OPTICAL).as_quat()
    quaternion *= np.sign(quaternion[3])
    np.testing.assert_allclose(quaternion, [-0.5, 0.5, -0.5, 0.5], atol=1e-12)


def test_robot_drives_forward_and_turns_left():
    T_base_camera = pose(0.3, 0.1, 0.5, rotation=OPTICAL)
    for T_map_base in (pose(), pose(2.0), pose(2.0, yaw=np.pi / 2), pose(2.0, 1.5, yaw=np.pi / 2)):
        T_map_camera = T_map_base @ T_base_camera
        np.testing.assert_allclose(map_to_base(T_map_camera, T_base_camera), T_map_base, atol=1e-12)


def test_correction_undoes_what_odometry_has_drifted():
    rng = np.random.default_rng(0)
    for _ in range(20):
        T_map_odom, T_odom_base = random_pose(rng), random_pose(rng)
        found = map_to_odom(T_map_odom @ T_odom_base, T_odom_base)
        np.testing.assert_allclose(found, T_map_odom, atol=1e-9)
        np.testing.assert_allclose(rigid.inverse(found) @ found, np.eye(4), atol=1e-9)


def test_the_average_lies_between():
    rng = np.random.default_rng(1)
    centre = random_pose(rng)
    offsets = [Rotation.from_rotvec(v).as_matrix() for v in ([0.1, 0, 0], [-0.1, 0, 0])]
    pair = [centre @ pose(0.2, rotation=offsets[0]), centre @ pose(-0.2, rotation=offsets[1])]
    np.testing.assert_allclose(average(pair, [1, 1]), centre, atol=1e-9)
    np.testing.assert_allclose(average(pair, [1, 0]), pair[0], atol=1e-9)


def test_slew_is_bounded_at_the_robot_and_arrives():
    config = TfConfig(max_speed=0.1, max_turn_rate=0.035)
    T_odom_base = pose(1000.0, -400.0)
    current, target = np.eye(4), pose(0.3, 0.2) @ pose(yaw=0.0)
    wanted = target @ T_odom_base
    steps = 0
    while not np.allclose(current @ T_odom_base, wanted, atol=1e-12):
        steps += 1
        before = current @ T_odom_base
        current = slew(current, target, T_odom_base, 0.05, config)
        moved = np.linalg.norm((current @ T_odom_base)[:3, 3] - before[:3, 3])
        assert moved <= 0.1 * 0.05 + 1e-9
        assert steps < 1000
    assert steps * 0.05 == pytest.approx(np.hypot(0.3, 0.2) / 0.1, abs=0.2)


def test_slew_jumps_when_the_correction_is_large():
    target = pose(6.0)
    np.testing.assert_array_equal(slew(np.eye(4), target, pose(), 0.05, TfConfig()), target)


def test_edges_of_each_mode_and_foreign_parents():
    def edges(**options):
        return broadcast_edges(TfConfig(frame_prefix="r1/", **options), "cam_optical_frame")

    odometry = Edge("r1/map", "r1/visual_odom")
    assert edges(mode="map_to_camera") == (Edge("r1/map", "cam_optical_frame"), odometry)
    assert edges(mode="map_to_base") == (Edge("r1/map", "r1/base_link"), odometry)
    assert edges(mode="map_to_odom") == (Edge("r1/map", "r1/odom"), odometry)
    assert edges(mode="none") == ()
    both = edges(mode="map_to_odom", odometry="visual")
    assert both == (Edge("r1/map", "r1/odom"), Edge("r1/odom", "r1/base_link"))
    edge = edges(mode="map_to_camera")[0]
    assert other_parent(edge, set()) is None
    assert other_parent(edge, {"r1/map"}) is None
    assert other_parent(edge, {"r1/map", "base_link"}) == "base_link"


def trajectory_pose(frame_id, T, chunk, provisional=False):
    return TrajectoryPose(frame_id, frame_id * 10**8, T, np.eye(6), 1.0, chunk, provisional)


def test_odometry_is_continuous_while_the_map_is_corrected():
    truth = [pose(0.1 * i, yaw=0.05 * i) for i in range(20)]
    odometry = VisualOdometry()
    steps = odometry.extend([trajectory_pose(i, truth[i], 0) for i in range(12)], 0)
    moved = pose(3.0, -2.0, yaw=1.0)
    corrected = [trajectory_pose(i, moved @ truth[i], 1) for i in range(8, 20)]
    earlier = [trajectory_pose(i, moved @ truth[i], 0) for i in range(8)]
    steps += odometry.extend([*earlier, *corrected], 1)
    assert [step.stamp_ns for step in steps] == [i * 10**8 for i in range(20)]
    for i, step in enumerate(steps):
        np.testing.assert_allclose(step.T_odom_camera, truth[i], atol=1e-9)
    np.testing.assert_allclose(steps[5].velocity[0], 1.0, atol=2e-2)
    np.testing.assert_allclose(steps[5].velocity[5], 0.5, atol=1e-9)


def test_odometry_stands_still_where_chunks_share_no_frame():
    odometry = VisualOdometry()
    odometry.extend([trajectory_pose(i, pose(0.1 * i), 0) for i in range(5)], 0)
    steps = odometry.extend([trajectory_pose(i, pose(50 + 0.1 * i), 1) for i in range(7, 10)], 1)
    np.testing.assert_allclose(steps[0].T_odom_camera, pose(0.4), atol=1e-12)
    np.testing.assert_allclose(steps[-1].T_odom_camera, pose(0.6), atol=1e-12)
    assert steps[0].covariance[0, 0] > 1e5, "how far it moved in between is unknown"
    assert steps[0].velocity_covariance[0, 0] > 1e5


def uncertain_pose(frame_id, T, chunk, placed):
    """Known within its chunk to 2 cm and 0.01 rad; where the chunk lies adds `placed`."""
    within = np.diag([4e-4] * 3 + [1e-4] * 3)
    return TrajectoryPose(frame_id, frame_id * 10**8, T, within + placed, 1.0, chunk, False, within)


def test_the_uncertainty_of_odometry_grows_and_no_loop_makes_it_shrink():
    """A loop closure in the last chunk makes the map certain again, but moves no odometry."""
    odometry, steps = VisualOdometry(), []
    for chunk, placed in enumerate([0.0, 0.5, 1.0, 1.5, 0.01]):
        ids = range(8 * chunk, 8 * chunk + 16)
        poses = [uncertain_pose(i, pose(0.1 * i), chunk, placed * np.eye(6)) for i in ids]
        steps += odometry.extend(poses, chunk)
    ends = [step.covariance for step in steps[15::8]]
    assert len(ends) == 5
    for before, after in zip(ends, ends[1:]):
        assert (np.diag(after) >= np.diag(before)).all()
        assert after[3, 3] > before[3, 3] and after[1, 1] > before[1, 1]
    assert ends[-1][0, 0] < 0.05, "five chunks of 2 cm are no metre"


def test_the_velocitys_covariance_is_that_of_the_motion_between_two_frames():
    """Sampled: both poses with their errors, their difference over the time between them."""
    random = np.random.default_rng(0)
    first, second = pose(5.0, 2.0, yaw=1.2), pose(5.1, 2.2, yaw=1.3)
    placed = 10.0 * np.eye(6)
    pair = [uncertain_pose(i, T, 0, placed) for i, T in enumerate((first, second))]
    step = VisualOdometry().extend(pair, 0)[1]
    samples = []
    for _ in range(4000):
        shaken = []
        for T in (first, second):
            error = random.standard_normal(6) * [0.02, 0.02, 0.02, 0.01, 0.01, 0.01]
            R = Rotation.from_rotvec(error[3:]).as_matrix() @ T[:3, :3]
            shaken.append(rigid.from_parts(R, T[:3, 3] + error[:3]))
        motion = rigid.inverse(shaken[0]) @ shaken[1]
        turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
        samples.append(np.concatenate([motion[:3, 3], turn]) / 0.1)
    sampled = np.cov(np.array(samples).T)
    np.testing.assert_allclose(step.velocity_covariance, sampled, atol=0.08 * np.abs(sampled).max())
    assert np.diag(step.velocity_covariance).max() < 1.0, "where the chunk lies does not matter"


def test_odometry_follows_a_map_that_was_rescaled_to_metres():
    odometry = VisualOdometry()
    before = odometry.extend([uncertain_pose(i, pose(0.1 * i), 0, 0.0) for i in range(9)], 0)
    metric = [uncertain_pose(i, pose(1.0 * i), 1, 0.0) for i in range(5, 12)]
    after = odometry.extend(metric, 1, applied=10.0)
    np.testing.assert_allclose(before[-1].T_odom_camera[0, 3], 0.8)
    np.testing.assert_allclose([s.T_odom_camera[0, 3] for s in after], [9.0, 10.0, 11.0])
    np.testing.assert_allclose(after[0].velocity[0], 10.0)
    assert after[0].covariance[0, 0] > 80.0 * before[-1].covariance[0, 0]


@pytest.mark.parametrize(
    "target", [pose(2.0), pose(yaw=0.2)], ids=["far for the distance", "far for the turn"]
)
def test_a_correction_too_large_to_follow_slowly_jumps(target):
    near = TfConfig(max_slew_distance=1.0, max_slew_turn=0.1)
    wide = TfConfig(max_slew_distance=3.0, max_slew_turn=0.3)
    np.testing.assert_array_equal(slew(np.eye(4), target, np.eye(4), 0.05, near), target)
    assert not np.allclose(slew(np.eye(4), target, np.eye(4), 0.05, wide), target)


def test_edges_join_the_frames_that_are_configured():
    config = TfConfig(
        mode="map_to_odom", odometry="visual", map_frame="world", odom_frame="drift",
        base_frame="body", frame_prefix="r1/",
    )  # fmt: skip
    edges = (Edge("r1/world", "r1/drift"), Edge("r1/drift", "r1/body"))
    assert broadcast_edges(config, "camera") == edges
