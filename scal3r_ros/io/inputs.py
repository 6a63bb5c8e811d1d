"""Chooses the reader for what the user named: a folder of images, a video or a rosbag2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scal3r_ros.files import BadArchive, open_regular
from scal3r_ros.io.bag import BagSource
from scal3r_ros.io.bag_files import SUFFIXES as BAG_SUFFIXES
from scal3r_ros.io.bag_files import is_bag
from scal3r_ros.io.bag_measurements import BagMeasurements
from scal3r_ros.io.folder import FolderSource
from scal3r_ros.io.folder_depth import FolderDepth
from scal3r_ros.io.image_decoding import MAX_PIXELS
from scal3r_ros.io.image_header import declared_size
from scal3r_ros.io.measurements import ALTERNATIVES, Measurements
from scal3r_ros.io.source import BadInput, FrameSource
from scal3r_ros.io.video import VideoSource
from scal3r_ros.io.video_kinds import video_kind


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
    if video_kind(path):
        return VideoSource(path, camera_info, max_pixels)
    raise BadInput(
        f"{path} is not a folder of images, a video (MP4, MOV, AVI, Matroska, MPEG-TS and others) "
        f"or a rosbag2 (folder, {' '.join(BAG_SUFFIXES)}); {_what_else(path)}"
    )


def _what_else(path: Path) -> str:
    """What a file seems to be, and what to do."""
    try:
        with open_regular(path) as file:
            start = file.read(4096)
    except (OSError, BadArchive):
        return "it is no regular file that can be read"
    if declared_size(start) is not None:
        return "it is one image: name its folder"
    if start.startswith(b"\x89MCAP0"):
        return "it is an MCAP recording: give it the suffix .mcap"
    if start.startswith(b"SQLite format 3\0"):
        return "it is a database, as of rosbag2: give it the suffix .db3"
    if start.startswith((b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")):
        return "it is packed: unpack it and name the folder"
    if path.name in ("rgb.txt", "metadata.yaml", "transforms.json", "data.csv"):
        return "it describes a recording: name its folder"
    return f"its {path.stat().st_size} bytes begin like none of these"


def open_measurements(
    source: FrameSource,
    path: str | Path,
    wanted: Mapping[str, str],
    topics: Mapping[str, str] | None = None,
    T_base_camera: np.ndarray | None = None,
    depth_unit: str = "",
) -> Measurements | None:
    """Measurements beside the images of `source`, which was opened from `path`; None if none are
    wanted.

    wanted: by kind, the option that asks for it, for messages. topics: by kind, the topic of a bag
    if there are several. depth_unit: that of depth images in a folder, if they do not tell. Raises
    `BadInput` if the input has none of a wanted kind.
    """
    path = Path(path).expanduser()
    if not wanted:
        return None
    if isinstance(source, BagSource):
        return BagMeasurements(path, wanted, source.topic, dict(topics or {}), T_base_camera)
    depth = source.depth() if isinstance(source, FolderSource) else None
    for kind, option in wanted.items():
        if kind != "depth" or depth is None:
            why = "no depth images lie beside its images" if kind == "depth" else "only bags do"
            raise BadInput(f"{option}: {path} offers no {kind}, {why}; {ALTERNATIVES[kind]}")
    assert depth is not None  # or the loop has raised
    return FolderDepth(depth, depth_unit)
