"""Writes small recordings of every kind that `open_source` reads."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from scal3r_ros.records import Frame

STORAGE = {"db3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}


def scene(count: int = 6, width: int = 64, height: int = 48) -> list[Frame]:
    """Smooth colourful frames that survive video compression, at 10 Hz from 100 s on."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    frames = []
    for i in range(count):
        waves = [np.sin((x + 4 * i) / 9.0), np.cos((y - 3 * i) / 7.0), np.sin((x + y) / 11.0 + i)]
        rgb = np.stack([127 + 100 * wave for wave in waves], axis=-1).astype(np.uint8)
        frames.append(Frame(i, 100_000_000_000 + i * 100_000_000, rgb))
    return frames


def write_folder(folder: Path, frames, stamps: bool = True, suffix: str = "png") -> Path:
    (folder / "rgb").mkdir(parents=True)
    lines = ["# timestamp filename"]
    for frame in frames:
        name = f"rgb/{frame.id:06d}.{suffix}"
        cv2.imwrite(str(folder / name), frame.rgb[..., ::-1])
        lines.append(f"{frame.stamp_ns // 10**9}.{frame.stamp_ns % 10**9:09d} {name}")
    if stamps:
        (folder / "rgb.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_video(path: Path, frames, rate: float = 10.0, codec: str = "mp4v") -> Path:
    height, width = frames[0].rgb.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame.rgb[..., ::-1]))
    writer.release()
    return path


def write_bag(
    folder: Path,
    frames,
    storage: str = "mcap",
    compressed: bool = False,
    intrinsics: np.ndarray | None = None,
    topic: str = "/camera/image_raw",
    more_topics: tuple[str, ...] = (),
    infos: tuple[dict, ...] = (),
) -> Path:
    """`intrinsics`: (3, 3) in ROS convention, published as camera info.

    infos: what the first camera infos have otherwise; the last one's holds for the rest.
    """
    types = get_typestore(Stores.ROS2_HUMBLE).types
    store = get_typestore(Stores.ROS2_HUMBLE)
    time, header = types["builtin_interfaces/msg/Time"], types["std_msgs/msg/Header"]
    kind = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
    name = f"{topic}/compressed" if compressed else topic
    with Writer(folder, version=8, storage_plugin=STORAGE[storage]) as writer:
        lines = [writer.add_connection(t, kind, typestore=store) for t in (name, *more_topics)]
        info_line = None
        if intrinsics is not None:
            info_kind = "sensor_msgs/msg/CameraInfo"
            info_name = topic.rsplit("/", 1)[0] + "/camera_info"
            info_line = writer.add_connection(info_name, info_kind, typestore=store)
        for number, frame in enumerate(frames):
            stamp = time(frame.stamp_ns // 10**9, frame.stamp_ns % 10**9)
            head = header(stamp, "camera")
            height, width = frame.rgb.shape[:2]
            if compressed:
                data = cv2.imencode(".png", frame.rgb[..., ::-1])[1].ravel()
                message = types[kind](head, "png", data)
            else:
                data = frame.rgb.ravel()
                message = types[kind](head, height, width, "rgb8", 0, 3 * width, data)
            for line in lines:
                writer.write(line, frame.stamp_ns, store.serialize_cdr(message, kind))
            if info_line is not None:
                info = camera_info(types, head, width, height, intrinsics)
                if infos:
                    info = replace(info, **infos[min(number, len(infos) - 1)])
                writer.write(info_line, frame.stamp_ns, store.serialize_cdr(info, info_kind))
    return folder


def camera_info(types, head, width: int, height: int, intrinsics: np.ndarray):
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    projection = np.hstack([intrinsics, np.zeros((3, 1))])
    return types["sensor_msgs/msg/CameraInfo"](
        header=head,
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=intrinsics.ravel().astype(np.float64),
        r=np.eye(3).ravel(),
        p=projection.ravel().astype(np.float64),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def write_camera_info(path: Path, K: np.ndarray, width: int, height: int, distortion=(0.0,) * 5):
    path.write_text(
        f"image_width: {width}\nimage_height: {height}\ncamera_name: test\n"
        f"camera_matrix: {{rows: 3, cols: 3, data: {K.ravel().tolist()}}}\n"
        f"distortion_model: plumb_bob\n"
        f"distortion_coefficients: {{rows: 1, cols: 5, data: {list(distortion)}}}\n"
    )
    return path
