"""The tracking thread: images and a mapped chunk in, stamped poses out; what leaves the map."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from box_room import BoxRoom, apart, stamp, tour

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")

from sensor_msgs.msg import Image

from scal3r_ros.io.calibration import Calibration
from scal3r_ros.networks.checkpoint import Contents, write_contents
from scal3r_ros.networks.mem3r.architecture import PRESETS
from scal3r_ros.networks.mem3r.network import Mem3R
from scal3r_ros.nodes.base.conversions import fill, header
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.input.frame_queue import Ticket
from scal3r_ros.nodes.tracking.live import LiveTracking, open_tracker, open_tracking
from scal3r_ros.options import from_dict
from scal3r_ros.records import ChunkPrediction, Frame, MapUpdate, ScaleEstimate, TrajectoryPose
from scal3r_ros.tracking.features import FeatureTracker
from scal3r_ros.tracking.interface import TrackingLost
from scal3r_ros.tracking.live_pose import LivePoses

pytestmark = pytest.mark.ros
MAPPED, COUNT, SCALE = 10, 34, 2.0
"""Images of the chunk; images in all; map units per chunk unit."""


@pytest.fixture(scope="module")
def walk():
    room, poses = BoxRoom(), tour(COUNT)
    return room, poses, [room.view(pose) for pose in poses]


def ticket(room, number, rgb):
    height, width = rgb.shape[:2]
    message = Image(
        header=header("camera", stamp(number)), height=height, width=width, encoding="rgb8",
        step=3 * width, data=fill(rgb, "B"),
    )  # fmt: skip
    K = room.intrinsics.copy()
    K[:2, 2] -= 0.5  # in ROS the first pixel's centre is (0, 0)
    return Ticket(stamp(number), message, rgb.nbytes, Calibration(width, height, K))


def mapped(room, poses, views, applied=1.0):
    """What the worker delivers after the first chunk, and its prediction."""
    frames = tuple(range(100, 100 + MAPPED))
    placed = np.stack(poses[:MAPPED])
    local, world = placed.copy(), placed.copy()
    local[:, :3, 3] /= SCALE
    K = np.broadcast_to(room.intrinsics, (MAPPED, 3, 3)).copy()
    depth = np.stack([depth for _, depth in views[:MAPPED]]) / np.float32(SCALE)
    rgb = np.stack([rgb for rgb, _ in views[:MAPPED]])
    prediction = ChunkPrediction(0, frames, local, K, depth, np.ones_like(depth), rgb)
    told = tuple(
        TrajectoryPose(frame, stamp(i), world[i], np.eye(6), 1.0, 0, True)
        for i, frame in enumerate(frames)
    )
    update = MapUpdate(
        1, 0, 0, told, np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8),
        np.zeros(0, np.float32), False, ScaleEstimate(),
    )  # fmt: skip
    mapper = SimpleNamespace(connected=True, chunk_scale=lambda _: SCALE)
    return SimpleNamespace(updates=(update,), mapper=mapper, replaced=False), prediction


def settled(tracking, count):
    """Wait until so many images were worked off."""
    deadline = time.monotonic() + 60.0
    while tracking.counts["tracked"] + tracking.counts["lost"] < count:
        assert time.monotonic() < deadline, dict(tracking.counts)
        time.sleep(0.01)


@pytest.fixture
def tracking():
    heard = []
    logger = SimpleNamespace(error=lambda text, **_: heard.append(text))
    thread = LiveTracking(
        NodeConfig(),
        lambda: LivePoses(FeatureTracker()),
        lambda pose, _: heard.append(pose),
        logger,
    )
    thread.start()
    yield thread, heard
    assert thread.stop(timeout=10.0)


def test_images_get_poses_once_a_chunk_is_mapped(walk, tracking):
    room, poses, views = walk
    thread, heard = tracking
    for i in range(COUNT):
        if i == 18:
            assert not heard and thread.lost
            thread.deliver(*mapped(room, poses, views))
        thread.put(ticket(room, i, views[i][0]))
        settled(thread, i + 1)
    assert heard and heard[-1].stamp_ns == stamp(COUNT - 1)
    assert thread.lost == "" and thread.counts["dropped"] == 0
    assert apart(heard[-1].T_map_camera, poses[COUNT - 1])[0] < 0.05
    told = len(heard)
    gone, prediction = mapped(room, poses, views)
    thread.deliver(SimpleNamespace(updates=(), mapper=gone.mapper, replaced=True), prediction)
    thread.put(ticket(room, COUNT, views[-1][0]))
    settled(thread, COUNT + 1)
    assert len(heard) == told and thread.lost
    assert not thread.record


def test_what_was_told_is_on_record_from_the_first_chunk_on(walk, tracking):
    room, poses, views = walk
    thread, heard = tracking
    for i in range(14, COUNT):
        if i == 18:
            thread.deliver(*mapped(room, poses, views))
        thread.put(ticket(room, i, views[i][0]))
        settled(thread, i - 13)
    assert [image.stamp_ns for image in thread.record] == [stamp(i) for i in range(18, COUNT)]
    assert not any(image.T_map_camera is not None for image in thread.record)  # began at no image


def test_stops_at_once_with_images_waiting(walk):
    room, _, views = walk
    entered, go_on = threading.Event(), threading.Event()

    def slow_start():
        entered.set()
        go_on.wait(10.0)
        return LivePoses(FeatureTracker())

    logger = SimpleNamespace(error=print)
    thread = LiveTracking(NodeConfig(), slow_start, lambda pose, _: None, logger)
    thread.start()
    for i in range(8):
        thread.put(ticket(room, i, views[i][0]))
    entered.wait(10.0)
    thread.ask_to_stop()
    go_on.set()
    assert thread.stop(timeout=5.0)
    assert thread.counts["tracked"] + thread.counts["lost"] == 0


def test_a_recurrent_network_follows_the_rule_and_the_blocks_that_are_set(walk, tmp_path):
    small = replace(
        PRESETS["mem3r-tiny"], enc_embed_dim=32, enc_depth=1, enc_num_heads=2, dec_embed_dim=32,
        dec_depth=2, dec_num_heads=2, state_dec_num_heads=2, state_size=12, image_size=48,
    )  # fmt: skip
    contents = Contents(Mem3R(small).state_dict(), "mem3r", small.to_json())
    written = write_contents(contents, tmp_path, "small")
    settings = {
        "tracking.kind": "mem3r", "tracking.rule": "ttsa3r", "tracking.block": 3,
        "tracking.checkpoint": str(next(p for p in written if p.suffix == ".safetensors")),
    }  # fmt: skip
    tracker = open_tracker(from_dict(NodeConfig, settings))
    blocks = []
    for i, (rgb, _) in enumerate(walk[2][:5]):
        with pytest.raises(TrackingLost):  # no chunk is mapped yet
            tracker.step(Frame(i, stamp(i), rgb))
        state = tracker.state()
        blocks.append(int(state["chain"][17]))
    assert blocks == [0, 0, 1, 1, 2]
    assert "ttsa3r" in str(state["network.format"])


def test_weights_that_are_not_there_are_said_and_end_it(node):
    config = from_dict(NodeConfig, {"tracking.kind": "mem3r", "tracking.checkpoint": "/none.pth"})
    heard = []
    logger = SimpleNamespace(error=lambda text, **_: heard.append(text))
    thread = LiveTracking(config, lambda: open_tracker(config), lambda pose, _: None, logger)
    thread.start()
    deadline = time.monotonic() + 60.0
    while not heard and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "no such checkpoint" in thread.lost and heard
    assert thread.stop(timeout=5.0)


@pytest.mark.parametrize(
    ("kind", "mode", "tracks"),
    [
        ("none", "map_to_camera", False),
        ("features", "map_to_camera", True),
        ("features", "map_to_odom", False),
    ],
)
def test_what_tracks_is_an_option_and_never_against_an_odometry(node, kind, mode, tracks):
    config = from_dict(NodeConfig, {"tracking.kind": kind, "tf.mode": mode})
    tracking = open_tracking(SimpleNamespace(config=config, node=node))
    assert isinstance(tracking, LiveTracking) == tracks
