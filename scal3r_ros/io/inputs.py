"""Chooses the reader for what the user named: a folder of images, a video or a rosbag2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scal3r_ros.io.bag import BagSource
from scal3r_ros.io.bag_files import SUFFIXES as BAG_SUFFIXES
from scal3r_ros.io.bag_files import is_bag
from scal3r_ros.io.bag_measurements import BagMeasurements
from scal3r_ros.io.folder import FolderSource
from scal3r_ros.io.folder_depth import FolderDepth
from scal3r_ros.io.image_decoding import MAX_PIXELS
from scal3r_ros.io.measurements import ALTERNATIVES, Measurements
from scal3r_ros.io.source import BadInput, FrameSource
from scal3r_ros.io.video import VideoSource

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".mts",
                  ".m2ts", ".ts", ".3gp", ".wmv", ".asf", ".flv", ".gif", ".ogv", ".h264", ".264",
                  ".h265", ".hevc")  # fmt: skip


def open_source(
    path: str | Path,
    topic: str = "",
    rate: float = 10.0,
    camera_info: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
    images: str = "",
) -> FrameSource:
    """Choose the reader for `path`; raises `BadInput`.

    `topic` chooses the image topic of a bag, `rate` (Hz) gives stamps to images that have none,
    `camera_info` is a ROS camera calibration file that replaces the one found beside the images.
    Images of more than `max_pixels` are refused before they are decoded. `images`: a glob that
    chooses among the images of a folder.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    if is_bag(path):
        return BagSource(path, topic, camera_info, max_pixels)
    if topic:
        raise BadInput(f"{path} is no bag, so it has no topic {topic}; leave --topic out")
    if path.is_dir():
        return FolderSource(path, rate, camera_info, max_pixels, images)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path, camera_info)
    raise BadInput(
        f"{path} is not a folder of images, a video ({' '.join(VIDEO_SUFFIXES)}) or a rosbag2 "
        f"(folder, {' '.join(BAG_SUFFIXES)})"
    )


def open_measurements(
    path: str | Path,
    wanted: Mapping[str, str],
    image_topic: str = "",
    topics: Mapping[str, str] | None = None,
    T_base_camera: np.ndarray | None = None,
    depth_unit: str = "",
) -> Measurements | None:
    """Measurements beside the images of `path`; None if none are wanted.

    wanted: by kind, the option that asks for it, for messages. topics: by kind, the topic of a bag
    if there are several. depth_unit: that of depth images in a
    folder, if they do not tell. Raises `BadInput` if the input has none of a wanted kind.
    """
    path = Path(path).expanduser()
    if not wanted:
        return None
    if image_topic:
        return BagMeasurements(path, wanted, image_topic, dict(topics or {}), T_base_camera)
    index = next((d / "depth.txt" for d in (path, path.parent) if _has_depth(d)), None)
    for kind, option in wanted.items():
        if kind != "depth" or index is None or not path.is_dir():
            why = "no depth.txt lies beside its images" if kind == "depth" else "only bags do"
            raise BadInput(f"{option}: {path} offers no {kind}, {why}; {ALTERNATIVES[kind]}")
    assert index is not None  # or the loop has raised
    return FolderDepth(index, depth_unit)


def _has_depth(folder: Path) -> bool:
    return (folder / "depth.txt").is_file()
