"""Images of a rosbag2 (`.db3` or `.mcap`) through the library `rosbags`; no ROS needed."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from scal3r_ros.io.bag_files import bag_paths, closed_copy, cut_files
from scal3r_ros.io.calibration import Calibration, calibrated_frame
from scal3r_ros.io.calibration_files import load_calibration
from scal3r_ros.io.camera_info import calibration_from_info, is_rectified_topic
from scal3r_ros.io.image_decoding import decode_message
from scal3r_ros.io.image_files import natural_key
from scal3r_ros.io.source import BadInput, SizeCheck, SourceImage
from scal3r_ros.io.stretch import Stretch
from scal3r_ros.records import Frame

log = logging.getLogger(__name__)

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"
_DEPTH_WORDS = ("depth", "disparity", "mask", "label", "infra")


class BagSource:
    """Images of one topic, raw or compressed, with intrinsics from its camera info."""

    def __init__(
        self, path: Path, topic: str, camera_info: str | Path | None, max_pixels: int
    ) -> None:
        self._path, self._max_pixels = path, max_pixels
        self._cut = cut_files(path)
        with open_bag(path) as reader:
            if self._cut and not any(info.msgcount for info in reader.topics.values()):
                raise BadInput(f"{path} is cut off before its first message; try `mcap recover`")
            types = {c.topic: c.msgtype for c in reader.connections}
            counts = {name: info.msgcount for name, info in reader.topics.items()}
            self.topic = choose_topic(types, counts, topic, path)
            self._count = counts[self.topic]
            self._calibration = (
                load_calibration(camera_info)
                if camera_info
                else _find_camera_info(reader, self.topic)
            )
        parts = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        self.files = tuple(parts)
        known = f"intrinsics from {self._calibration.name}" if self._calibration else ""
        self.description = (
            f"bag topic {self.topic}, {self._count} images, {known or 'no intrinsics'}"
        )

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SourceImage]:
        check, stretch, number = SizeCheck(), Stretch(), 0
        with open_bag(self._path) as reader:
            connections = [c for c in reader.connections if c.topic == self.topic]
            unstamped = self._starts_unstamped(reader)
            if unstamped:
                log.warning(
                    "%s: images on %s have no header stamps; the times of recording are used",
                    self._path,
                    self.topic,
                )
            for connection, recorded_ns, data in reader.messages(connections):
                message: Any = reader.deserialize(data, connection.msgtype)
                stamp = message.header.stamp
                stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
                stamp_ns = recorded_ns if unstamped else stamp_ns
                load = partial(self._load, number, stamp_ns, message, check, stretch)
                yield SourceImage(number, stamp_ns, load)
                number += 1
        if self._cut or number < self._count:
            cure = "; `mcap recover` repairs what is left" if self._cut else ""
            raise BadInput(
                f"{self._path} is cut off: {number} images on {self.topic} can be read{cure}"
            )

    def _starts_unstamped(self, reader: Any) -> bool:
        """Whether the first two images have no stamps: one alone may be taken at time zero, as in
        simulation."""
        connections = [c for c in reader.connections if c.topic == self.topic]
        first = list(islice(reader.messages(connections), 2))
        stamps = [reader.deserialize(data, c.msgtype).header.stamp for c, _, data in first]
        return len(stamps) == 2 and not any(stamp.sec or stamp.nanosec for stamp in stamps)

    def _load(
        self, number: int, stamp_ns: int, message: Any, check: SizeCheck, stretch: Stretch
    ) -> Frame:
        name = f"{self._path}: image {number} on {self.topic}"
        rgb = check(decode_message(message, name, self._max_pixels, stretch), name)
        return calibrated_frame(number, stamp_ns, rgb, self._calibration)


def choose_topic(types: dict[str, str], counts: dict[str, int], wanted: str, path: Path) -> str:
    """The wanted image topic, or the only colour one; raises `BadInput` and lists what there is."""
    images = sorted(t for t, kind in types.items() if kind in (RAW, COMPRESSED) and counts[t])
    listing = ", ".join(f"{t} ({counts[t]})" for t in images) or "none"
    if wanted:
        for name in (wanted, f"{wanted}/compressed"):
            if name in images:
                return name
        raise BadInput(f"{path} has no images on {wanted}; image topics: {listing}")
    if not images:
        if video := sorted(t for t, kind in types.items() if kind.endswith("CompressedVideo")):
            raise BadInput(
                f"{path} holds no images, but coded video on {', '.join(video)}, which is not "
                f"read; decode it to sensor_msgs/CompressedImage first"
            )
        raise BadInput(f"{path} holds no images; topics: {', '.join(sorted(types)) or 'none'}")
    colour = [t for t in images if not any(word in t.lower() for word in _DEPTH_WORDS)] or images
    cameras = {t.removesuffix("/compressed"): t for t in reversed(colour)}
    if len(cameras) > 1:
        raise BadInput(f"{path} has several image topics; choose one with --topic: {listing}")
    return next(iter(cameras.values()))


def _find_camera_info(reader: Any, topic: str) -> Calibration | None:
    """The first usable calibration beside the images; raises the first problem if all have one.

    The first messages of a driver may be empty, before it has read its file.
    """
    camera = topic.removesuffix("/compressed").rsplit("/", 1)[0]
    problem: BadInput | None = None
    connections = [
        c for c in reader.connections if c.msgtype == INFO and c.topic == f"{camera}/camera_info"
    ]
    if not connections:
        return None
    for connection, _, data in reader.messages(connections):
        info: Any = reader.deserialize(data, connection.msgtype)
        try:
            found = calibration_from_info(info, connection.topic, is_rectified_topic(topic))
        except BadInput as error:
            problem = problem or error
            continue
        if found is not None:
            return found
    if problem is not None:
        raise problem
    return None


@contextmanager
def open_bag(path: Path) -> Iterator[Any]:
    """Reader of a bag; whatever is wrong with the bag while it is open becomes `BadInput`."""
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.rosbag2 import ReaderError
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise BadInput("reading bags needs the library rosbags: pip install rosbags") from error
    errors = (AnyReaderError, ReaderError, sqlite3.Error, OSError, EOFError, AssertionError)
    store = get_typestore(Stores.ROS2_HUMBLE)
    try:
        with ExitStack() as stack:
            files = bag_paths(path)
            if cut := cut_files(path):
                whole = sorted(path.glob("*.mcap"), key=natural_key) if path.is_dir() else [path]
                files = [stack.enter_context(closed_copy(p)) if p in cut else p for p in whole]
            yield stack.enter_context(AnyReader(files, default_typestore=store))
    except BadInput:
        raise
    except (*errors, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        cure = "mcap recover" if _holds_mcap(path) else "ros2 bag reindex"
        raise BadInput(
            f"{path} is no readable rosbag2 or is cut off ({type(error).__name__}: {error}); try "
            f"`{cure}`"
        ) from error


def _holds_mcap(path: Path) -> bool:
    return path.suffix == ".mcap" or (path.is_dir() and any(path.glob("*.mcap")))
