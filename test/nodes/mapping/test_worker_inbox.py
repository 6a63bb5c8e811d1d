"""What reaches the mapper while the network is still being loaded."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from mapper_runs import SMALL
from oracle import OracleReconstructor, drive
from rclpy.logging import get_logger

from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.input.frame_queue import FrameQueue
from scal3r_ros.nodes.mapping.worker import MAX_OBSERVATIONS, MappingWorker
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct.interruptible import InterruptibleReconstructor

pytestmark = pytest.mark.ros


def test_where_the_camera_is_mounted_is_not_lost_among_measurements():
    """Odometry at 100 Hz fills its queue in a minute; what is told once must not be in it."""
    config, mount = from_dict(NodeConfig, SMALL), np.diag([1.0, -1.0, -1.0, 1.0])
    reconstructor = InterruptibleReconstructor(OracleReconstructor(drive(frames=4)))
    worker = MappingWorker(
        config,
        FrameQueue(config.queue),
        lambda settings: (Mapper(settings, reconstructor), reconstructor),
        lambda output: None,
        get_logger("test"),
    )
    told = worker.submit(lambda mapper: mapper.set_camera_mount(mount))
    for i in range(2 * MAX_OBSERVATIONS):
        worker.observe(lambda mapper, stamp=i: mapper.observe_odometry(stamp, np.eye(4)))
    worker.start()
    told.result(timeout=30)
    found = worker.mapper.live_map.scale_and_level.T_base_camera
    np.testing.assert_array_equal(found, mount)
    assert worker.stop(timeout=5.0)
