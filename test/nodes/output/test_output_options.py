"""Names, sizes and rates of the outputs are those of the options."""

import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from mapping_process import LATCHED
from oracle import OracleReconstructor, drive
from tf2_msgs.msg import TFMessage

from scal3r_ros.bench.city import BODY_OPTICAL
from scal3r_ros.nodes.base.conversions import matrix_to_transform, stamp_to_ns, transform_to_matrix
from scal3r_ros.nodes.base.node_config import NodeConfig, TfConfig
from scal3r_ros.nodes.mapping.worker import Output
from scal3r_ros.nodes.output.live_view import open_view
from scal3r_ros.nodes.output.transforms import Transforms
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.records import ScaleEstimate, TrajectoryPose

pytestmark = pytest.mark.ros
BASE, CAMERA, SECOND = "base_link", "camera_optical_frame", 1_000_000_000
SMALL = {"chunk.size": 16, "chunk.overlap": 8, "loop.enabled": False}


def moved(x: float) -> np.ndarray:
    T = np.eye(4)
    T[0, 3] = x
    return T


def test_frames_topics_and_messages_are_named_and_bounded_as_configured(start_mapping, make_robot):
    options = {"frames": 60, "length": 30.0}
    parameters = {
        "tf.mode": "map_to_odom", "tf.odometry": "visual", "tf.require_scale": False,
        "tf.map_frame": "world", "tf.odom_frame": "drift", "tf.rate": 2.0,
        "publish.slice_points": 1000, "publish.graph": False,
    }  # fmt: skip
    process, robot = start_mapping(options, **parameters), make_robot(options)
    base = np.eye(4)
    base[:3, :3] = BODY_OPTICAL
    robot.send_static(base, BASE, CAMERA)
    robot.until_active()
    robot.show(range(16))
    robot.flush()
    robot.until(lambda: robot.transforms("drift", BASE), what="odometry under its name")
    heard = robot.heard
    for name in ("trajectory", "pose", "path", "cloud", "map"):
        assert {message.header.frame_id for message in heard[name]} == {"world"}, name
    assert len(heard["cloud"]) > 1 and all(m.width * m.height <= 1000 for m in heard["cloud"])
    assert not heard["graph"]
    robot.forget()
    robot.spin(3.0)
    assert 1 <= len(robot.transforms("world", "drift")) <= 8, "twice a second"
    assert process.stop() == 0 and "Traceback" not in process.output


class Listener:
    """A `Transforms` that knows the camera's mount, and what it broadcasts."""

    def __init__(self, ros, node, spin_until, config: TfConfig) -> None:
        self.transforms, self.heard = Transforms(node, config), []
        other = ros.create_node("other")
        other.create_subscription(TFMessage, "/tf", self.heard.append, 10)
        static = other.create_publisher(TFMessage, "/tf_static", LATCHED)
        edge = TFMessage(transforms=[matrix_to_transform(np.eye(4), BASE, CAMERA, 0)])
        self.until = lambda condition: spin_until(condition, node, other, timeout=20.0)
        self.until(lambda: other.count_publishers("/tf") and other.count_subscribers("/tf_static"))
        static.publish(edge)
        self.until(lambda: self.transforms._buffer.parents(CAMERA))

    def update(self, places: dict[int, float]) -> np.ndarray:
        """Map poses of a robot that stands still by its odometry; T_map_odom as broadcast."""
        poses = [
            TrajectoryPose(i, stamp_ns, moved(x), np.eye(6), 1.0, 0, False)
            for i, (stamp_ns, x) in enumerate(places.items())
        ]
        count = len(self.heard)
        self.transforms.update(poses, (), CAMERA, ScaleEstimate(), poses[-1].stamp_ns)
        if self.transforms.problem:
            raise LookupError(self.transforms.problem)
        self.until(lambda: len(self.heard) > count)
        return transform_to_matrix(self.heard[-1].transforms[0])


PLACES = {SECOND: 1.0, 2 * SECOND: 2.0, 3 * SECOND: 6.0}
PLAIN = TfConfig(mode="map_to_odom", require_scale=False)


@pytest.mark.parametrize(("count", "expected"), [(1, 6.0), (2, 4.0)])
def test_the_newest_frames_are_averaged(ros, node, spin_until, count, expected):
    listener = Listener(ros, node, spin_until, replace(PLAIN, average=count))
    for stamp_ns in PLACES:
        listener.transforms.odometry.add(stamp_ns, np.eye(4))
    np.testing.assert_allclose(listener.update(PLACES), moved(expected), atol=1e-9)


def test_transforms_are_kept_for_a_while_and_dated_ahead(ros, node, spin_until):
    listener = Listener(ros, node, spin_until, replace(PLAIN, buffer=4.0, tolerance=0.25))
    for second in range(1, 11):
        listener.transforms.odometry.add(second * SECOND, np.eye(4))
    with pytest.raises(LookupError, match="no transform odom <- base_link"):
        listener.update({SECOND: 1.0})
    listener.update({9 * SECOND: 1.0})
    listener.transforms.rebroadcast(10 * SECOND, 0.1)
    stamps = [stamp_to_ns(m.transforms[0].header.stamp) for m in listener.heard]
    ahead = 10 * SECOND + SECOND // 4

    def stamped_ahead() -> bool:
        return stamp_to_ns(listener.heard[-1].transforms[0].header.stamp) == ahead

    assert max(stamps) < ahead
    listener.until(stamped_ahead)


def test_the_live_view_is_bounded_as_configured():
    pytest.importorskip("viser")
    options = {
        **SMALL, "viewer.enabled": True, "viewer.port": 18090, "viewer.max_points": 1000,
        "viewer.max_frusta": 3, "map.voxel_size": 0.2,
    }  # fmt: skip
    config, city = from_dict(NodeConfig, options), drive(frames=24)
    mapper = Mapper(config, OracleReconstructor(city))
    updates = [update for i in range(24) for update in mapper.add(city.frame(i))]

    class Log:
        """Takes the address."""

        def info(self, text: str) -> None:
            self.said = text

    view = open_view(config, Log())
    try:
        assert view is not None and mapper.points_count > 1000
        view.show(Output(mapper, tuple(updates), final=True))
        deadline = time.monotonic() + 20.0
        while not view._view.sent:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (cloud,) = view._view._page._clouds
        assert 0 < len(cloud.points) <= 1000
        assert view._view._limits == (1000, 3)
    finally:
        view.close()
