"""Transforms of a robot with a base, over DDS: axes, one parent, nothing before it is known."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from map_reading import odometry_in_map
from mapping_process import BEST_EFFORT
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from scal3r_ros import rigid
from scal3r_ros.bench.city import BODY_OPTICAL
from scal3r_ros.bench.oracle import OracleReconstructor
from scal3r_ros.nodes.base.conversions import (
    header,
    matrix_to_pose,
    stamp_to_ns,
    transform_to_matrix,
)
from scal3r_ros.records import Chunk

pytestmark = pytest.mark.ros
CAMERA, BASE, ODOM = "camera_optical_frame", "base_link", "odom"


def pose(x=0.0, y=0.0, z=0.0, yaw=0.0, rotation=None):
    T = np.eye(4)
    cosine, sine = np.cos(yaw), np.sin(yaw)
    T[:2, :2] = [[cosine, -sine], [sine, cosine]]
    T[:3, 3] = x, y, z
    if rotation is not None:
        T[:3, :3] = T[:3, :3] @ rotation
    return T


def test_map_to_odom_corrects_an_odometry_source(start_mapping, make_robot):
    options = {"frames": 120, "length": 60.0}
    parameters = {"tf.mode": "map_to_odom", "scale.source": "odometry", "gate.max_gap": 0.0}
    process, robot = start_mapping(options, **parameters), make_robot(options)
    city = robot.city
    T_base_camera = pose(0.2, 0.0, 0.4, rotation=BODY_OPTICAL)
    T_odom_world = pose(7.0, -3.0, 0.0, yaw=0.8)
    T_odom_base = [T_odom_world @ T @ np.linalg.inv(T_base_camera) for T in city.T_world_camera]
    odometry = robot.node.create_publisher(Odometry, "odom", BEST_EFFORT)
    robot.until_active()

    def drive(indices):
        for i in indices:
            stamp = city.stamp_ns(i)
            message = Odometry(header=header(ODOM, stamp), child_frame_id=BASE)
            message.pose.pose = matrix_to_pose(T_odom_base[i])
            odometry.publish(message)
            robot.send_tf(T_odom_base[i], ODOM, BASE, stamp)
            robot.image.publish(robot.image_message(i))
            robot.spin(0.03)

    drive(range(24))
    robot.spin(1.0)
    assert not robot.transforms("map", ODOM), "broadcast without base to camera"
    assert robot.heard["trajectory"] and not robot.heard["pose"], "the camera is not the base"
    robot.until_status("tf", level=1, message=f"no transform {BASE} <- {CAMERA}")

    robot.send_static(T_base_camera, BASE, CAMERA)
    robot.spin(0.5)
    drive(range(24, 100))
    robot.until_status("scale", level=0)
    robot.until(lambda: robot.transforms("map", ODOM), 60, "map to odom")
    robot.flush()
    robot.spin(0.5)
    assert odometry_in_map(robot), "beside the odometry of the robot"
    heard = robot.transforms("map", ODOM)
    stamps = [stamp_to_ns(item.header.stamp) for item in heard]
    assert stamps == sorted(stamps) and len(set(stamps)) == len(stamps)
    assert stamps[-1] >= city.stamp_ns(99), "re-broadcast follows the stream"
    T_map_odom = transform_to_matrix(heard[-1])
    first = city.T_world_camera[0]
    T_world_map = first @ pose(rotation=BODY_OPTICAL.T)
    T_map_odom_true = np.linalg.inv(T_world_map) @ np.linalg.inv(T_odom_world)
    for i in (60, 99):
        found, true = T_map_odom @ T_odom_base[i], T_map_odom_true @ T_odom_base[i]
        np.testing.assert_allclose(found[:3, 3], true[:3, 3], atol=0.3)
        np.testing.assert_allclose(found[:3, :3], true[:3, :3], atol=0.01)

    at, cameras = robot.heard["pose"][-1], robot.heard["trajectory"][-1]
    assert at.header.stamp == cameras.header.stamp
    place = at.pose.pose.position
    lever = np.array([place.x, place.y, place.z]) - cameras.positions[-3:]
    assert np.linalg.norm(lever) == pytest.approx(np.hypot(0.2, 0.4)), "in metres"
    of_camera = np.array(cameras.covariances[-36:]).reshape(6, 6)
    of_base = np.array(at.pose.covariance).reshape(6, 6)
    np.testing.assert_allclose(of_base, rigid.carried(of_camera, lever), rtol=1e-9, atol=1e-12)
    assert not np.allclose(of_base, of_camera, rtol=1e-3, atol=1e-9)

    robot.send_static(pose(), "world", ODOM)
    robot.until_status("tf", level=2, message="odom already has the parent world")
    robot.heard["tf"].clear()
    drive(range(100, 112))
    assert not robot.transforms("map", ODOM)
    assert process.stop() == 0 and "Traceback" not in process.output


def test_a_correction_is_slewed(start_mapping, make_robot):
    """The wheels slip: map to odom follows at limited speed, and says what is left."""
    options = {"frames": 60, "length": 30.0}
    parameters = {
        "tf.mode": "map_to_odom", "tf.correction": "slew", "tf.require_scale": False,
        "input.odometry": True, "input.timeout": 60.0,
    }  # fmt: skip
    process, robot = start_mapping(options, **parameters), make_robot(options)
    city, oracle, slip = robot.city, OracleReconstructor(robot.city), 0.4
    oracle.reconstruct(Chunk(0, 0, tuple(city.frame(i) for i in range(8)), ()))
    odometry = robot.node.create_publisher(Odometry, "odom", BEST_EFFORT)
    robot.until_active()
    robot.until(lambda: odometry.get_subscription_count() == 1)
    robot.send_static(pose(rotation=BODY_OPTICAL), BASE, CAMERA)
    robot.spin(0.5)

    def drive(indices, offset):
        for i in indices:
            T_odom_base = city.T_world_camera[i] @ pose(rotation=BODY_OPTICAL.T)
            T_odom_base[:3, 3] = T_odom_base[:3, 3] / oracle.units[0] + offset
            message = Odometry(header=header(ODOM, city.stamp_ns(i)), child_frame_id=BASE)
            message.pose.pose = matrix_to_pose(T_odom_base)
            odometry.publish(message)
            robot.show([i], rate=10)
        robot.flush()

    def now():
        return transform_to_matrix(robot.transforms("map", ODOM)[-1])

    drive(range(20), 0.0)
    robot.until(lambda: robot.transforms("map", ODOM), 60, "map to odom")
    start = now()
    robot.forget()
    drive(range(20, 32), np.array([0.0, slip, 0.0]))
    # Any report since: the slew takes four seconds, of which driving may have taken most.
    robot.until(lambda: max(corrections_left(robot), default=0.0) > 0.05, 60, "a report of it")
    end = start @ pose(y=-slip)
    robot.until(lambda: np.linalg.norm((now() - end)[:3, 3]) < 1e-3, 60, "the whole correction")
    heard = [transform_to_matrix(item) for item in robot.transforms("map", ODOM)]
    moved = np.array([np.linalg.norm((T - start)[:3, 3]) for T in heard])
    steps = np.diff(moved)
    assert steps.min() > -0.01 and steps.max() < 0.5 * slip, "no jump"
    stamps = np.array([stamp_to_ns(item.header.stamp) for item in robot.transforms("map", ODOM)])
    under_way = stamps[(moved > 0.02) & (moved < slip - 0.02)]
    assert (under_way[-1] - under_way[0]) * 1e-9 > 0.5 * slip / 0.1, "0.1 m/s at most"
    robot.until_status("tf", **{"correction left [m]": "0.000"})
    assert process.stop() == 0 and "Traceback" not in process.output


def test_slewing_does_not_lead_through_the_change_to_metres(start_mapping, make_robot):
    """What was on its way in map units is not mixed with metres: it ends where the scale freezes,
    and the new place holds at once."""
    options = {"frames": 60, "length": 30.0}
    parameters = {
        "tf.mode": "map_to_odom", "tf.correction": "slew", "tf.require_scale": False,
        "tf.max_slew_distance": 1000.0, "tf.max_slew_turn": 3.0, "input.odometry": True,
        "scale.source": "odometry", "input.timeout": 60.0, "input.camera_info": False,
    }  # fmt: skip
    process, robot = start_mapping(options, **parameters), make_robot(options)
    odometry = robot.node.create_publisher(Odometry, "odom", BEST_EFFORT)
    robot.until_active()
    robot.until(lambda: odometry.get_subscription_count() == 1)
    robot.send_static(pose(rotation=BODY_OPTICAL), BASE, CAMERA)
    robot.spin(0.5)

    def drive(indices):
        for i in indices:
            T = robot.city.T_world_camera[i] @ pose(rotation=BODY_OPTICAL.T)
            message = Odometry(header=header(ODOM, robot.city.stamp_ns(i)), child_frame_id=BASE)
            message.pose.pose = matrix_to_pose(T)
            odometry.publish(message)
            robot.show([i], rate=15)
        robot.flush()

    def broadcasts():
        return [transform_to_matrix(item) for item in robot.transforms("map", ODOM)]

    drive(range(8))
    robot.until(broadcasts, 60, "map to odom in map units")
    assert robot.fresh_status("scale")["frozen"] == "False"
    drive(range(8, 60))
    robot.until_status("scale", frozen="True")
    robot.spin(1.0)
    places = np.array([T[:3, 3] for T in broadcasts()])
    off = np.linalg.norm(places - places[-1], axis=1)
    assert off[0] > 1.0, "in map units it was elsewhere"
    last_in_units = np.flatnonzero(off > 0.5)[-1]
    assert len(off) > last_in_units + 5
    assert off[last_in_units + 1 :].max() < 0.2, "and in metres it is there at once"
    assert process.stop() == 0 and "Traceback" not in process.output


def corrections_left(robot):
    """Metres that were still to be slewed, by every report heard."""
    reports = [s for array in robot.heard["diagnostics"] for s in array.status]
    values = [{item.key: item.value for item in report.values} for report in reports]
    return [float(v["correction left [m]"]) for v in values if "correction left [m]" in v]


def test_map_to_base_waits_for_scale_unless_told_otherwise(start_mapping, make_robot):
    options = {"frames": 60, "length": 30.0}
    process, robot = start_mapping(options, **{"tf.mode": "map_to_base"}), make_robot(options)
    robot.until_active()
    robot.send_static(pose(rotation=BODY_OPTICAL), BASE, CAMERA)
    robot.show(range(12))
    robot.until(lambda: "no metric scale" in robot.fresh_status("tf")["message"], 60)
    assert not robot.transforms("map", BASE)

    setter = robot.node.create_client(SetParameters, "/mapping_node/set_parameters")
    robot.until(setter.service_is_ready)

    def set_parameter(name, value):
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        future = setter.call_async(request)
        return robot.until(lambda: future.done() and future.result()).results[0]

    refused = set_parameter("tf.require_scale", False)
    assert not refused.successful and "unconfigured" in refused.reason
    assert set_parameter("publish.map_interval", 0.5).successful
    refused = set_parameter("publish.map_points", 20)
    assert not refused.successful
    for name in ("deactivate", "cleanup"):
        assert robot.change_state(name)
    assert set_parameter("tf.require_scale", False).successful
    assert not set_parameter("chunk.overlap", 30).successful, "checked together with chunk.size"
    for name in ("configure", "activate"):
        assert robot.change_state(name)
    robot.forget()
    robot.spin(0.5)
    robot.show(range(12, 32))
    robot.flush()
    transforms = robot.until(lambda: robot.transforms("map", BASE), 60, "map to base")
    assert len(odometry_in_map(robot)) == 20, "its frame is on the tree"
    T = transform_to_matrix(transforms[-1])
    assert stamp_to_ns(transforms[-1].header.stamp) == robot.city.stamp_ns(31)
    first, last = robot.city.T_world_camera[12], robot.city.T_world_camera[31]
    to_body = pose(rotation=BODY_OPTICAL)
    motion = to_body @ np.linalg.inv(first) @ last @ to_body.T
    np.testing.assert_allclose(T[:3, :3], motion[:3, :3], atol=1e-3)
    way = motion[:3, 3] / np.linalg.norm(motion[:3, 3])
    np.testing.assert_allclose(T[:3, 3] / np.linalg.norm(T[:3, 3]), way, atol=0.01)
    assert way[0] > 0.9, "driving forward is along x"
    assert process.stop() == 0 and "Traceback" not in process.output


def test_visual_odometry_fills_the_tree_and_none_leaves_it_alone(start_mapping, make_robot):
    """map to odom to base without a foreign odometry; then the same robot without broadcasts."""
    options = {"frames": 60, "length": 30.0}
    parameters = {"tf.mode": "map_to_odom", "tf.odometry": "visual", "tf.require_scale": False}
    process, robot = start_mapping(options, **parameters), make_robot(options)
    robot.send_static(pose(rotation=BODY_OPTICAL), BASE, CAMERA)
    robot.until_active()
    robot.show(range(24))
    robot.flush()
    robot.until(lambda: len(robot.transforms(ODOM, BASE)) == 24, 60, "odom to base of every frame")
    T_odom_base = {
        stamp_to_ns(t.header.stamp): transform_to_matrix(t) for t in robot.transforms(ODOM, BASE)
    }
    T_map_odom = transform_to_matrix(robot.transforms("map", ODOM)[-1])
    at = robot.heard["pose"][-1]
    composed = T_map_odom @ T_odom_base[stamp_to_ns(at.header.stamp)]
    position = at.pose.pose.position
    np.testing.assert_allclose(composed[:3, 3], [position.x, position.y, position.z], atol=1e-6)
    assert composed[0, 3] > 0, "forward is along x"
    assert {message.header.frame_id for message in robot.heard["odometry"]} == {ODOM}

    for name in ("deactivate", "cleanup"):
        assert robot.change_state(name)
    setter = robot.node.create_client(SetParameters, "/mapping_node/set_parameters")
    robot.until(setter.service_is_ready)
    change = Parameter("tf.mode", value="none").to_parameter_msg()
    future = setter.call_async(SetParameters.Request(parameters=[change]))
    assert robot.until(lambda: future.done() and future.result()).results[0].successful
    for name in ("configure", "activate"):
        assert robot.change_state(name)
    robot.forget()
    robot.spin(0.5)
    robot.show(range(24, 44))
    robot.flush()
    robot.until(lambda: robot.heard["pose"], 60, "poses without /tf")
    assert not robot.heard["tf"]
    assert process.stop() == 0 and "Traceback" not in process.output
