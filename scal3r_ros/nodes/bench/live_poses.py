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

from scal3r_ros import rigid
from scal3r_ros.mapping.pose_fit import similarity_of_poses
from scal3r_ros.nodes.base.conversions import pose_to_matrix, stamp_to_ns, transform_to_matrix

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
        heard = Player(rclpy.create_node("player", namespace=NAMESPACE)).play(recording, args.rate)
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


class Player:
    """Sends a recording at its own pace and notes when poses of its images are heard."""

    def __init__(self, node: Any) -> None:
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._images = node.create_publisher(CompressedImage, "image/compressed", 10)
        self._info = node.create_publisher(CameraInfo, "camera_info", 10)
        self._sent: dict[int, float] = {}
        self._heard: dict[int, tuple[float, np.ndarray]] = {}
        node.create_subscription(TFMessage, "/tf", self._note, 500)

    def play(self, recording: dict[str, list], rate: float) -> dict[int, tuple[float, np.ndarray]]:
        """By stamp: seconds until the pose was heard, and T_map_camera."""
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
            self._sent[stamp] = time.monotonic()
        self._spin(5.0)
        return self._heard

    def _note(self, message: TFMessage) -> None:
        for transform in message.transforms:
            stamp = stamp_to_ns(transform.header.stamp)
            if stamp in self._sent and stamp not in self._heard:
                late = time.monotonic() - self._sent[stamp]
                self._heard[stamp] = late, transform_to_matrix(transform)

    def _spin(self, seconds: float) -> None:
        deadline = time.monotonic() + max(seconds, 0.001)
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)


def evaluate(
    truth: dict[int, np.ndarray], heard: dict[int, tuple[float, np.ndarray]]
) -> dict[str, Any]:
    """Figures of a live trajectory; poses that came later than a second are those of chunks."""
    live = {stamp: pose for stamp, (late, pose) in heard.items() if late < 1.0 and stamp in truth}
    stamps = sorted(live)
    path = np.stack([truth[stamp] for stamp in sorted(truth)])[:, :3, 3]
    length = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    if len(stamps) < 3:
        return {"live": len(stamps), "chunks": len(heard), "path": length}
    mine, theirs = np.stack([live[s] for s in stamps]), np.stack([truth[s] for s in stamps])
    spread = [np.linalg.norm(p[:, :3, 3] - p[:, :3, 3].mean(axis=0)) for p in (theirs, mine)]
    S = similarity_of_poses(theirs, mine, spread[0] / spread[1])
    aligned = S.move_pose(mine)
    error = np.linalg.norm(aligned[:, :3, 3] - theirs[:, :3, 3], axis=1)
    late = np.array([heard[stamp][0] for stamp in stamps])
    after = [stamp for stamp in truth if stamp >= stamps[0]]
    return {
        "images": len(truth),
        "live": len(stamps),
        "share_after_first": len(stamps) / len(after),
        "first_after_s": (stamps[0] - min(truth)) * 1e-9,
        "latency_ms_median_p95": np.round(1e3 * np.percentile(late, [50, 95]), 1).tolist(),
        "ate_rmse": float(np.sqrt(np.square(error).mean())),
        "ate_of_path": float(np.sqrt(np.square(error).mean()) / length),
        "path": length,
        "largest_step": _largest_step(aligned, theirs, np.array(stamps)),
    }


def _largest_step(mine: np.ndarray, truth: np.ndarray, stamps: np.ndarray) -> list[float]:
    """Largest error of the motion between neighbouring images: distance, degrees."""
    near = np.diff(stamps) < 0.2e9
    moves = [(rigid.inverse(T[:-1]) @ T[1:])[near] for T in (mine, truth)]
    rest = rigid.inverse(moves[1]) @ moves[0]
    cosine = (np.trace(rest[:, :3, :3], axis1=1, axis2=2) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return [float(np.linalg.norm(rest[:, :3, 3], axis=1).max()), float(angle.max())]


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
