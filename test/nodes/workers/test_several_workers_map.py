"""mapping_node with two workers over DDS maps the demo recording as mapping_node alone does."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
pytest.importorskip("torch", reason="torch is absent; run the tests with `make test`")

from crew import tiny_network  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray
from plyfile import PlyData  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from worker_processes import FIRST, MAPPER, SECOND, SYNC, Robot  # noqa: E402

from scal3r_ros.msg import ContextState  # noqa: E402
from scal3r_ros.nodes.base.conversions import fill, header  # noqa: E402
from scal3r_ros.nodes.workers.context_messages import STATE_QOS  # noqa: E402
from scal3r_ros.srv import Export, SaveMap  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(280)]
BAG = Path(__file__).resolve().parents[3] / "demo" / "loop_room"
STRIDE, FRAMES = 10, 28
OPTIONS = {
    "chunk.size": 8,
    "chunk.overlap": 4,
    "distributed.round_size": 2,
    "distributed.ready_timeout": 100.0,
    "input.image_transport": "compressed",
    "input.camera_info": False,
    "qos.image.reliability": "reliable",
    "qos.image.depth": 100,
    "loop.enabled": False,
    "alignment.method": "vggt_long",  # without the gate, which random weights would not pass
}
PATIENCE = 120.0


def recorded_images():
    """Every tenth image of the recording, as it was recorded."""
    with AnyReader([BAG]) as reader:
        connections = [c for c in reader.connections if c.msgtype.endswith("CompressedImage")]
        for i, (connection, stamp, raw) in enumerate(reader.messages(connections)):
            if i % STRIDE == 0 and i < STRIDE * FRAMES:
                image = reader.deserialize(raw, connection.msgtype)
                message = CompressedImage(
                    header=header("camera_optical_frame", stamp), format=image.format
                )
                message.data = fill(image.data, "B")
                yield message


def received(reports, namespace):
    """Images that a robot's mapping_node has taken in, by its newest diagnostics."""
    name = f"{namespace}/{MAPPER}: input"
    found = [s for r in reports for s in r.status if s.name == name]
    return {item.key: item.value for item in found[-1].values}["received"] if found else None


def map_with(robot, node, spin_until, folder):
    """Stamped positions and cloud of the recording, from the nodes of a robot."""

    def call(kind, name, request):
        client = node.create_client(kind, f"/{robot.namespace}/{MAPPER}/{name}")
        spin_until(client.service_is_ready, node, timeout=PATIENCE, what=name)
        future = client.call_async(request)
        spin_until(future.done, node, timeout=PATIENCE, what=f"answer of {name}")
        assert future.result().success, future.result().message

    topic = f"/{robot.namespace}/image/compressed"
    publisher = node.create_publisher(CompressedImage, topic, 100)
    spin_until(publisher.get_subscription_count, node, timeout=PATIENCE, what="mapping_node")
    reports: list[DiagnosticArray] = []
    heard = node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 50)
    for message in recorded_images():
        publisher.publish(message)

    def all_received():
        return received(reports, robot.namespace) == str(FRAMES)

    spin_until(all_received, node, timeout=PATIENCE, what="all images")
    node.destroy_subscription(heard)
    call(Trigger, "flush", Trigger.Request())
    call(Export, "export", Export.Request(path=str(folder)))
    vertices = PlyData.read(folder / "map.ply")["vertex"]
    points = np.stack([vertices[axis] for axis in "xyz"], axis=1)
    return np.loadtxt(folder / "trajectory.txt"), points


def check_saving(robot, node, spin_until, folder, chunks):
    """Whoever has died, and with a chunk that waits for them: the map is saved and exported, soon,
    with the memory that was known last; and stopping saves it too, within five seconds."""
    prefix = f"/{robot.namespace}/{MAPPER}"
    clients = {
        name: node.create_client(kind, f"{prefix}/{name}")
        for name, kind in {"save_map": SaveMap, "export": Export}.items()
    }

    def ask(name, **fields):
        future = clients[name].call_async(clients[name].srv_type.Request(**fields))
        spin_until(future.done, node, timeout=PATIENCE, what=f"answer of {name}")
        assert future.result().success, future.result().message
        return future.result().message

    assert "memory" not in ask("save_map", path=str(folder / "whole"))
    publisher = node.create_publisher(CompressedImage, f"/{robot.namespace}/image/compressed", 100)
    spin_until(publisher.get_subscription_count, node, timeout=PATIENCE, what="the camera")
    for dead in ((FIRST, SECOND), (SYNC,)):
        for name in dead:
            robot.kill(name)
        for number in range(OPTIONS["chunk.size"]):  # a chunk that nobody takes
            publisher.publish(later_image(number))
        told = ask("save_map", path=str(folder / dead[0]))
        assert f"saved with the memory of the first {chunks} chunks" in told
        assert (folder / dead[0] / "map_state.npz").is_file()
        ask("export", path=str(folder / f"{dead[0]}_export"))
    began = time.monotonic()
    assert robot.stop(MAPPER, number=signal.SIGTERM) == 0
    assert time.monotonic() - began < 5.0
    assert (folder / "auto" / "map_state.npz").is_file()


def later_image(number):
    first = next(recorded_images())
    first.header = header("camera_optical_frame", 10**18 + number * 10**8)
    return first


def test_the_map_is_that_of_a_single_process(node, spin_until, tmp_path, ros_domain):
    from scal3r_ros.networks.scal3r.checkpoint import save_checkpoint

    network = tiny_network()
    weights = save_checkpoint(network.state_dict(), network.architecture, tmp_path, "tiny")[0]
    alone, several = Robot("alone", weights, tmp_path), Robot("several", weights, tmp_path)
    try:
        alone.start(MAPPER, **OPTIONS)
        expected, cloud = map_with(alone, node, spin_until, tmp_path / "alone_map")
        alone.close()
        several.start(SYNC, FIRST, SECOND)
        states: list[ContextState] = []
        node.create_subscription(ContextState, "/several/context_state", states.append, STATE_QOS)
        autosave = {"autosave.path": str(tmp_path / "auto"), "autosave.on_shutdown": True}
        several.start(MAPPER, **{**OPTIONS, **autosave, "worker.count": 2})
        found, points = map_with(several, node, spin_until, tmp_path / "several_map")
        chunks = (FRAMES - OPTIONS["chunk.overlap"]) // OPTIONS["chunk.overlap"]
        expected_state = (chunks, 2, True)

        def at_the_end():
            last = states[-1] if states else ContextState()
            return (last.chunks_merged, len(last.workers), last.sync_bytes > 0) == expected_state

        spin_until(at_the_end, node, timeout=PATIENCE, what="all chunks merged by two workers")
        check_saving(several, node, spin_until, tmp_path, chunks)
    finally:
        alone.close()
        several.close()
    assert len(expected) == FRAMES and found.shape == expected.shape
    assert (found[:, 0] == expected[:, 0]).all()
    size = np.ptp(expected[:, 1:4], axis=0).max()
    assert size > 0.1
    assert np.abs(found[:, 1:4] - expected[:, 1:4]).max() <= 1e-3 * size
    assert np.abs(found[:, 4:] - expected[:, 4:]).max() <= 1e-3
    assert abs(len(points) - len(cloud)) <= 0.01 * len(cloud)
    spread = np.linalg.norm(cloud.std(axis=0))
    assert np.linalg.norm(points.mean(axis=0) - cloud.mean(axis=0)) <= 1e-3 * spread
    assert abs(np.linalg.norm(points.std(axis=0)) - spread) <= 1e-3 * spread
