"""What happens to the map reaches the node's log, good news and warnings alike."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent")

from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.input.frame_queue import FrameQueue
from scal3r_ros.nodes.mapping.worker import MappingWorker
from scal3r_ros.records import Event, MapUpdate

pytestmark = pytest.mark.ros


def update_with(*names: str) -> MapUpdate:
    none = np.zeros((0, 3), np.float32)
    events = tuple(Event(name, f"about {name}") for name in names)
    return MapUpdate(0, 0, 0, (), none, none.astype(np.uint8), none[:, 0], False, events=events)


def test_events_of_every_severity_are_logged_and_counted(node, capfd):
    delivered = []
    config = NodeConfig()
    worker = MappingWorker(
        config, FrameQueue(config.queue), lambda _: None, delivered.append, node.get_logger()
    )
    names = ("chunk_failed", "loop_closed", "alignment_failed", "scale_frozen", "chunk_failed")
    worker.deliver([update_with(*names)])
    log = "".join(capfd.readouterr())
    for name in names:
        assert f"{name}: about {name}" in log
    assert worker.counts["chunk_failed"] == 2 and worker.counts["loop_closed"] == 1
    assert len(delivered) == 1
