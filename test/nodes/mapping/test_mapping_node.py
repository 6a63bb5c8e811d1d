"""The mapping node as its users meet it: real processes and DDS, a network that knows the truth."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from map_reading import camera_poses, cloud_by_hand, odometry_in_map, world_from_map
from mapping_process import LATCHED
from sensor_msgs.msg import PointCloud2

from scal3r_ros.bench.city import SETBACK
from scal3r_ros.nodes.base.conversions import stamp_to_ns

pytestmark = pytest.mark.ros


def distance_to_surface(world, city):
    """Metres from each point to the street or to the nearest face of a building."""
    inside = np.mod(world[:, :2], city.block)
    faces = [np.abs(inside - SETBACK), np.abs(inside - (city.block - SETBACK))]
    return np.min([np.abs(world[:, 2]), *faces[0].T, *faces[1].T], axis=0)


def check_depth(robot, scale):
    """The newest depth image is the true one of its stamp, its camera_info the city's camera."""
    heard = robot.heard
    depth, info = heard["depth"][-1], heard["camera_info"][-1]
    assert depth.encoding == "32FC1" and depth.header.stamp == info.header.stamp
    metres = scale * np.frombuffer(bytes(depth.data), "<f4").reshape(depth.height, depth.width)
    index = [robot.city.stamp_ns(i) for i in range(60)].index(stamp_to_ns(depth.header.stamp))
    truth = robot.city.render(np.array([index]))[0][0]
    np.testing.assert_array_equal(np.isnan(metres), np.isnan(truth))
    np.testing.assert_allclose(metres, truth, rtol=1e-3)
    focal, centre = robot.city.intrinsics[0, 0], robot.city.intrinsics[0, 2]
    assert (info.k[0], info.k[2]) == pytest.approx((focal, centre - 0.5))


def test_a_hand_held_camera(start_mapping, make_robot, tmp_path):
    """Everything that leaves the node tells the same, true story; a late listener hears it too."""
    options = {"frames": 60}
    process, robot = start_mapping(options, **{"gate.max_gap": 2.0}), make_robot(options)
    robot.until_active()
    robot.show(range(32))
    robot.flush()
    heard = robot.heard
    robot.until(lambda: len(camera_poses(heard["trajectory"])) == 32, 60, "32 poses")
    poses = camera_poses(heard["trajectory"])
    scale, R, shift, error = world_from_map(poses, robot.city)
    assert error < 0.01

    # Axes: a level camera looking along the street is x forward, z up in the map (REP 103).
    first = poses[robot.city.stamp_ns(0)]
    np.testing.assert_allclose(first[:3, 2], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(first[:3, 1], [0, 0, -1], atol=1e-6)

    transforms = robot.transforms("map", "camera_optical_frame")
    assert {stamp_to_ns(t.header.stamp) for t in transforms} <= set(poses)
    newest = transforms[-1]
    last = robot.city.stamp_ns(31)
    assert stamp_to_ns(newest.header.stamp) == last
    at = newest.transform.translation
    np.testing.assert_allclose([at.x, at.y, at.z], poses[last][:3, 3], atol=1e-9)

    pose = heard["pose"][-1]
    assert pose.header.frame_id == "map"
    for covariance in (
        pose.pose.covariance,
        heard["odometry"][-1].pose.covariance,
        heard["odometry"][-1].twist.covariance,
    ):
        assert min(covariance[0], covariance[7], covariance[14]) > 1e5, "metres are unknown"
        assert 0 < max(covariance[21], covariance[28], covariance[35]) < 1, "turns are not"
    np.testing.assert_allclose(pose.pose.pose.position.x, at.x, atol=1e-9)
    placed = odometry_in_map(robot)
    assert sorted(placed) == sorted(poses)
    for stamp, T_map_camera in placed.items():
        np.testing.assert_allclose(T_map_camera, poses[stamp], atol=1e-4)
    twist = heard["odometry"][5].twist.twist.linear
    assert twist.z > 0 and abs(twist.x) < 1e-3 * twist.z, "an optical frame drives along its z"

    robot.until(lambda: heard["map"][-1].width > 500, 60, "the map")
    points, colors, confidence = cloud_by_hand(heard["map"][-1])
    world = scale * points @ R.T + shift
    assert len(points) > 500 and np.isfinite(points).all() and (confidence > 0).all()
    from_surface = distance_to_surface(world, robot.city)
    assert np.quantile(from_surface, 0.98) < 0.02, "points are on the street or on a wall"
    assert (world[:, 2] > 1.0).any(), "walls are seen"
    slices = sum(message.width for message in heard["cloud"])
    assert slices >= len(points) * 0.9

    path = heard["path"][-1]
    assert [stamp_to_ns(p.header.stamp) for p in path.poses] == sorted(poses)

    check_depth(robot, scale)
    assert {m.ns for m in heard["graph"][-1].markers} == {"nodes", "chain", "loops"}

    late = []
    robot.node.create_subscription(PointCloud2, "/mapping_node/map", late.append, LATCHED)
    robot.until(lambda: late, 60, "the map for a late listener")
    assert late[-1].width == heard["map"][-1].width

    for concern, level in {"input": 0, "inference": 0, "map": 0, "scale": 1, "tf": 0}.items():
        robot.until_status(concern, level=level)
    robot.until_status("input", received="32", queued="32", decoded="32", processed="32")
    robot.until_status("scale", message="units of its own")
    assert process.stop() == 0 and "Traceback" not in process.output


def all_accounted_for(counts):
    """Every frame received was dropped or processed (none is waiting)."""
    processed, dropped = int(counts["processed"]), int(counts["dropped"])
    return processed > 0 and int(counts["received"]) == dropped + processed


@pytest.mark.parametrize("policy, executor", [("thin", "multi"), ("drop_oldest", "single")])
def test_overload_drops_frames_but_keeps_overlap(start_mapping, make_robot, policy, executor):
    """A worker ten times too slow: frames are dropped and counted, chunks still share frames."""
    options = {"frames": 200, "length": 40.0, "seconds": 0.6}
    parameters = {"queue.max_frames": 8, "queue.policy": policy, "gate.max_gap": 0.0}
    parameters["executor"] = executor
    process, robot = start_mapping(options, **parameters), make_robot(options)
    robot.until_active()
    robot.show(range(200), rate=60)
    robot.flush()
    robot.until(lambda: all_accounted_for(robot.status("input")), 60, "every frame's fate")
    assert int(robot.status("input")["dropped"]) > 40
    messages = robot.heard["trajectory"]

    def covered_ns():
        stamps = {stamp for message in messages for stamp in message.stamps_ns}
        return max(stamps) - min(stamps) if stamps else 0

    sent_ns = robot.city.stamp_ns(199) - robot.city.stamp_ns(0)
    robot.until(lambda: covered_ns() > 0.9 * sent_ns, 60, "poses from start to end")
    assert {message.session for message in messages} == {0}, "one chain from start to end"
    assert world_from_map(camera_poses(messages), robot.city)[3] < 0.05
    assert process.stop() == 0
    assert "Traceback" not in process.output


def test_device_memory_and_device_loss(start_mapping, make_robot):
    """Too large chunks shrink and mapping goes on; a lost device is told, the map still served."""
    options = {"frames": 60, "fits": 6, "fail_from": 8}
    process, robot = start_mapping(options), make_robot(options)
    robot.until_active()
    robot.show(range(16))
    robot.until_status("gpu", level=1, message="shrunk")
    poses = robot.until(lambda: camera_poses(robot.heard["trajectory"]), 60)
    assert world_from_map(poses, robot.city)[3] < 0.01
    robot.show(range(16, 40))
    robot.until_status("inference", level=2, message="simulated device is lost")
    assert len(robot.heard["map"]) > 0 and robot.call("set_paused", data=True).success
    assert process.stop() == 0


def test_a_loop_closure_moves_everything_together(start_mapping, make_robot):
    """After a correction trajectory, path, pose, /tf and map tell of the same revision."""
    options = {"frames": 150, "length": 130.0, "route": "ENWSE", "drift": 0.08}
    parameters = {
        "chunk.size": 12, "chunk.overlap": 6, "loop.enabled": True, "loop.min_gap": 40,
        "loop.window": 8, "loop.nms_window": 10, "loop.threshold": 0.5, "queue.max_frames": 200,
    }  # fmt: skip
    process, robot = start_mapping(options, **parameters), make_robot(options)
    robot.until_active()
    robot.show(range(150))
    robot.flush()
    heard = robot.heard
    robot.until(lambda: len(camera_poses(heard["trajectory"])) == 150, 60, "150 poses")
    robot.spin(0.5)
    assert "loop_closed" in process.output
    before = [m for m in heard["trajectory"] if m.map_revision == 0]
    drifted = world_from_map(camera_poses(before), robot.city)[3]
    last = heard["trajectory"][-1]
    assert last.corrected and len(last.frame_ids) > 100 and last.map_revision >= 2
    poses = camera_poses(heard["trajectory"])  # what did not move is not told again
    assert world_from_map(poses, robot.city)[3] < 0.6 * drifted

    path = {stamp_to_ns(item.header.stamp): item.pose.position for item in heard["path"][-1].poses}
    assert path.keys() == poses.keys()
    for stamp, at in path.items():
        np.testing.assert_allclose([at.x, at.y, at.z], poses[stamp][:3, 3], atol=1e-9)
    newest = poses[max(poses)][:3, 3]
    at = heard["pose"][-1].pose.pose.position
    np.testing.assert_allclose([at.x, at.y, at.z], newest, atol=1e-9)
    at = robot.transforms("map", "camera_optical_frame")[-1].transform.translation
    np.testing.assert_allclose([at.x, at.y, at.z], newest, atol=1e-9)
    loops = next(m for m in heard["graph"][-1].markers if m.ns == "loops")
    assert loops.action == 0 and len(loops.points) >= 2

    steps = [np.linalg.norm(np.diff(values, axis=0), axis=1) for values in (
        [np.array([m.pose.pose.position.x, m.pose.pose.position.y, m.pose.pose.position.z])
         for m in heard["odometry"]],
        [poses[stamp][:3, 3] for stamp in sorted(poses)],
    )]  # fmt: skip
    assert len(steps[0]) == 149 and steps[0].max() < 2.0 * np.median(steps[1]), "odometry jumps"
    assert process.stop() == 0 and "Traceback" not in process.output
