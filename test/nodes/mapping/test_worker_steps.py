"""A step that fails costs what it was about: the session lives, counts it, and can be saved."""

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
import rclpy.logging
from mapping_process import SMALL_CHUNKS
from oracle_node import DEFAULTS, StampOracle, make_city
from sensor_msgs.msg import Image

from scal3r_ros.nodes.base.conversions import fill
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.input.frame_queue import FrameQueue, Ticket
from scal3r_ros.nodes.mapping.worker import MappingWorker
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct.interruptible import InterruptibleReconstructor

pytestmark = pytest.mark.ros
COUNT = 24


class Session:
    """A worker with a real mapper; its first `failing` deliveries of a chunk raise."""

    def __init__(self, failing: int, **options) -> None:
        self.city = make_city(DEFAULTS)
        self.config = from_dict(NodeConfig, {**SMALL_CHUNKS, **options})
        self.frames = FrameQueue(self.config.queue)
        self.failing, self.delivered = failing, 0
        logger = rclpy.logging.get_logger("test")
        self.worker = MappingWorker(self.config, self.frames, self._make, self._deliver, logger)

    def _make(self, config):
        reconstructor = InterruptibleReconstructor(StampOracle(DEFAULTS))
        return Mapper(config, reconstructor), reconstructor

    def _deliver(self, output) -> None:
        if output.updates and self.failing:
            self.failing -= 1
            raise OverflowError("a number that no message can hold")
        self.delivered += len(output.updates)

    def queue(self) -> None:
        for index in range(COUNT):
            frame = self.city.frame(index)
            height, width = frame.rgb.shape[:2]
            image = Image(height=height, width=width, encoding="rgb8", step=3 * width,
                          data=fill(frame.rgb, "B"))  # fmt: skip
            self.frames.put(Ticket(frame.stamp_ns, image, frame.rgb.nbytes))

    def until(self, condition) -> None:
        deadline = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < deadline, self.worker.reason
            time.sleep(0.02)


def test_a_failed_step_leaves_the_session_alive_and_savable(tmp_path):
    session = Session(failing=2)
    worker = session.worker
    worker.set_running(True)
    worker.start()
    try:
        session.queue()
        session.until(lambda: not len(session.frames) and session.delivered)
        assert worker.counts["failed"] == 2 and worker.state == "ready"
        folder = tmp_path / "map"
        worker.submit(lambda mapper: mapper.save(folder)).result(60.0)
        assert folder.exists()
        poses = worker.submit(lambda mapper: len(mapper.trajectory())).result(60.0)
        assert poses >= COUNT - 8
    finally:
        worker.stop(2.0)


@pytest.mark.parametrize("most", [2, 3])
def test_steps_that_keep_failing_stop_the_mapping_but_not_the_saving(tmp_path, most):
    session = Session(failing=100, **{"worker.max_failures": most})
    worker = session.worker
    worker.set_running(True)
    worker.start()
    try:
        session.queue()
        session.until(lambda: not worker.running)
        assert worker.state == "ready" and worker.counts["failed"] == most
        assert "deactivate and activate to go on" in worker.reason
        worker.submit(lambda mapper: mapper.save(tmp_path / "map")).result(60.0)
        assert (tmp_path / "map").exists()
    finally:
        worker.stop(2.0)
