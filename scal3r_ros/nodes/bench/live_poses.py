"""How good the poses on /tf are when they come: a recording with truth, played in real time.

Node and player are two processes on real DDS. Reports the share of images that got a pose once the
first chunk was mapped, the time from sending an image to hearing its pose, the error of the live
trajectory after Sim(3) alignment with the truth, and the largest step beyond the camera's own
motion.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CameraInfo, CompressedImage
from tf2_msgs.msg import TFMessage

from scal3r_ros.io.tracked import TrackedImage
from scal3r_ros.msg import ChunkTrajectory
from scal3r_ros.nodes.base.conversions import pose_to_matrix, stamp_to_ns, transform_to_matrix
from scal3r_ros.pipeline.live_score import score_images

NAMESPACE = "/scal3r_live"
_KINDS = {
    "/camera/image_raw/compressed": CompressedImage,
    "/camera/camera_info": CameraInfo,
    "/ground_truth/pose": PoseStamped,
}
_PATIENCE = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m scal3r_ros.nodes.bench.live_poses`."""
    parser.add_argument("--bag", type=Path, default=Path("demo/loop_room"))
    parser.add_argument("--config", type=Path, default=Path("config/demo.yaml"))
    parser.add_argument("--rate", type=float, default=1.0, help="speed of the playback")
    parser.add_argument("--out", type=Path, default=Path("out/bench/live_poses.json"))
    parser.add_argument(
        "-p", action="append", default=[], help="parameter of the node, name:=value"
    )


def run(args: argparse.Namespace) -> None:
    """Measure once, print, write `--out`."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    recording = read(args.bag)
    command = [sys.executable, "-m", "scal3r_ros.nodes.mapping_node", "--ros-args"]
    command += ["-r", f"__ns:={NAMESPACE}", "--params-file", str(args.config)]
    command += ["-p", "input.image_transport:=compressed"]
    command += [word for parameter in args.p for word in ("-p", parameter)]
    process = subprocess.Popen(command)
    rclpy.init()
    try:
        player = Player(rclpy.create_node("player", namespace=NAMESPACE))
        heard = player.play(recording, args.rate)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_PATIENCE)
        rclpy.try_shutdown()
    truth = {stamp_to_ns(m.header.stamp): pose_to_matrix(m.pose) for m in recording["truth"]}
    result: dict[str, Any] = evaluate(truth, heard) | {"load": os.getloadavg()[0]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


def read(bag: Path) -> dict[str, list]:
    """Images, calibrations and true poses of a recording, as ROS messages."""
    found: dict[str, list] = {"image": [], "info": [], "truth": []}
    with AnyReader([bag]) as reader:
        for connection, _, raw in reader.messages():
            kind = _KINDS.get(connection.topic)
            if kind is not None:
                name = dict(zip(_KINDS, found))[connection.topic]
                found[name].append(deserialize_message(bytes(raw), kind))
    return found


@dataclass
class Heard:
    """What came back; times are monotonic seconds."""

    sent: dict[int, float] = field(default_factory=dict)
    """When each image was sent, by stamp."""
    poses: dict[int, tuple[float, np.ndarray]] = field(default_factory=dict)
    """Seconds until its pose was heard, and T_map_camera."""
    first_chunk: float | None = None
    """When the first chunk's trajectory was heard."""

    @property
    def live(self) -> set[int]:
        """Images whose pose came before a chunk could tell it."""
        return {stamp for stamp, (late, _) in self.poses.items() if late < 1.0}


class Player:
    """Sends a recording at its own pace and notes when poses of its images are heard."""

    def __init__(self, node: Any) -> None:
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._images = node.create_publisher(CompressedImage, "image/compressed", 10)
        self._info = node.create_publisher(CameraInfo, "camera_info", 10)
        self._heard = Heard()
        node.create_subscription(TFMessage, "/tf", self._note, 500)
        node.create_subscription(ChunkTrajectory, "mapping_node/trajectory", self._note_chunk, 50)

    def play(self, recording: dict[str, list], rate: float) -> Heard:
        """All images of it."""
        deadline = time.monotonic() + _PATIENCE
        while not self._images.get_subscription_count():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the node did not start within {_PATIENCE:.0f} s")
            self._spin(0.1)
        self._spin(3.0)
        first, began = stamp_to_ns(recording["image"][0].header.stamp), time.monotonic()
        for image, info in zip(recording["image"], recording["info"]):
            stamp = stamp_to_ns(image.header.stamp)
            self._spin(began + (stamp - first) * 1e-9 / rate - time.monotonic())
            self._info.publish(info)
            self._images.publish(image)
            self._heard.sent[stamp] = time.monotonic()
        self._spin(5.0)
        return self._heard

    def _note(self, message: TFMessage) -> None:
        sent, poses = self._heard.sent, self._heard.poses
        for transform in message.transforms:
            stamp = stamp_to_ns(transform.header.stamp)
            if stamp in sent and stamp not in poses:
                late = time.monotonic() - sent[stamp]
                poses[stamp] = late, transform_to_matrix(transform)

    def _note_chunk(self, message: ChunkTrajectory) -> None:
        if self._heard.first_chunk is None:
            self._heard.first_chunk = time.monotonic()

    def _spin(self, seconds: float) -> None:
        deadline = time.monotonic() + max(seconds, 0.001)
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)


def evaluate(truth: dict[int, np.ndarray], heard: Heard) -> dict[str, Any]:
    """Figures of a live trajectory, over the images sent after the first chunk was heard of; what
    came later than a second is the pose of a chunk."""
    images = [
        TrackedImage(stamp, *heard.poses[stamp]) if stamp in heard.live else TrackedImage(stamp)
        for stamp in sorted(heard.sent)
        if heard.first_chunk is not None and heard.sent[stamp] >= heard.first_chunk
    ]
    result = {"images": len(heard.sent), "after_first_chunk": len(images)}
    if len([image for image in images if image.T_map_camera is not None]) < 3:
        return result | {"live": 0}
    stamps = np.array(sorted(truth), np.int64)
    score = score_images(images, stamps, np.stack([truth[s] for s in stamps.tolist()]))
    return result | {
        "share": round(score.share, 4),
        "latency_ms_median_p95": [
            round(1e3 * score.latency_median, 1),
            round(1e3 * score.latency_p95, 1),
        ],
        "path": round(score.path_length, 3),
        "ate_rmse": round(score.ate_rmse, 4),
        "ate_percent": round(score.ate_percent, 3),
        "rpe_1s": [round(score.rpe_translation, 4), round(score.rpe_rotation_deg, 3)],
        "largest_step": [round(score.largest_step[0], 4), round(score.largest_step[1], 3)],
    }


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
