"""Write the demo recording: a camera tour through one held-out world as a rosbag2 recording.

    python -m scal3r_ros.train.demo_bag demo/loop_room

Topics: /camera/image_raw/compressed (JPEG), /camera/camera_info, /ground_truth/pose (camera to
world, optical axes, metres).
"""

from __future__ import annotations

import argparse
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from scal3r_ros.train.worlds.clips import HELD_OUT_SEEDS, WorldSampler
from scal3r_ros.train.worlds.rendering import focal_length
from scal3r_ros.train.worlds.tours import Tour, film, make_tour

IMAGE_TOPIC = "/camera/image_raw/compressed"
INFO_TOPIC = "/camera/camera_info"
TRUTH_TOPIC = "/ground_truth/pose"
_SIZE = (240, 320)
_RATE = 15.0
_START_NS = 1_700_000_000_000_000_000
_SEED = HELD_OUT_SEEDS + 2
_STORE = get_typestore(Stores.ROS2_HUMBLE)
_TYPES = _STORE.types


def write_demo_bag(folder: Path, frames: int = 360, quality: int = 72) -> Path:
    """Render the tour and write the recording; `folder` must not exist yet."""
    pool = WorldSampler.held_out().textures
    made = demo_tour(frames)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=_STORE)
            for topic, kind in (
                (IMAGE_TOPIC, "sensor_msgs/msg/CompressedImage"),
                (INFO_TOPIC, "sensor_msgs/msg/CameraInfo"),
                (TRUTH_TOPIC, "geometry_msgs/msg/PoseStamped"),
            )
        }
        index = 0
        for images, _, _ in film(made, pool, _SIZE):
            for image in images:
                stamp = _START_NS + round(index * 1e9 / _RATE)
                rgb = (image.permute(1, 2, 0) * 255).round().byte().numpy()
                messages = {
                    IMAGE_TOPIC: _compressed(rgb, stamp, quality),
                    INFO_TOPIC: _camera_info(made, stamp),
                    TRUTH_TOPIC: _pose(made.T_world_camera[index].numpy(), stamp),
                }
                for topic, message in messages.items():
                    data = _STORE.serialize_cdr(message, message.__msgtype__)
                    writer.write(connections[topic], stamp, data)
                index += 1
    return folder


def demo_tour(frames: int) -> Tour:
    """The world of the demo and the camera's way through it."""
    pool = WorldSampler.held_out().textures
    return replace(make_tour("room", frames, _SEED, pool, gaze="left"), fov=math.radians(70.0))


def _header(stamp: int, frame: str):
    time = _TYPES["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9)
    return _TYPES["std_msgs/msg/Header"](time, frame)


def _compressed(rgb: np.ndarray, stamp: int, quality: int):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "jpeg", quality=quality)
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    kind = _TYPES["sensor_msgs/msg/CompressedImage"]
    return kind(_header(stamp, "camera_optical_frame"), "rgb8; jpeg compressed bgr8", data)


def _camera_info(made: Tour, stamp: int):
    """Intrinsics in ROS's convention, where the centre of the first pixel is (0, 0)."""
    import torch

    height, width = _SIZE
    focal = float(focal_length(torch.tensor(made.fov), width))
    cx, cy = width / 2 - 0.5, height / 2 - 0.5
    K = np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1.0])
    P = np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, 1.0, 0])
    region = _TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return _TYPES["sensor_msgs/msg/CameraInfo"](
        _header(stamp, "camera_optical_frame"), height, width, "plumb_bob", np.zeros(5), K,
        np.eye(3).reshape(-1), P, 0, 0, region,
    )  # fmt: skip


def _pose(T_world_camera: np.ndarray, stamp: int):
    from scipy.spatial.transform import Rotation

    x, y, z, w = (float(v) for v in Rotation.from_matrix(T_world_camera[:3, :3]).as_quat())
    point = _TYPES["geometry_msgs/msg/Point"](*(float(v) for v in T_world_camera[:3, 3]))
    pose = _TYPES["geometry_msgs/msg/Pose"](
        point, _TYPES["geometry_msgs/msg/Quaternion"](x, y, z, w)
    )
    return _TYPES["geometry_msgs/msg/PoseStamped"](_header(stamp, "world"), pose)


def main() -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="recording to write; must not exist")
    parser.add_argument("--frames", type=int, default=360)
    arguments = parser.parse_args()
    write_demo_bag(arguments.folder, arguments.frames)


if __name__ == "__main__":
    main()
