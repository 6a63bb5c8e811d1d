"""Images of a rosbag2 (`.db3` or `.mcap`) through the library `rosbags`; no ROS needed."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from scal3r_ros.io.bag_files import bag_paths, closed_copy, cut_files
from scal3r_ros.io.calibration import Calibration, calibrated_frame
from scal3r_ros.io.calibration_files import load_calibration
from scal3r_ros.io.camera_info import calibration_from_info, is_rectified_topic
from scal3r_ros.io.image_decoding import decode_message
from scal3r_ros.io.image_files import natural_key
from scal3r_ros.io.image_header import shown_size
from scal3r_ros.io.source import BadInput, SizeCheck, SourceImage, most_common
from scal3r_ros.io.stamp_order import sorted_closely
from scal3r_ros.io.stretch import Stretch
from scal3r_ros.io.video_packets import PacketDecoder, codec_name, video_codec
from scal3r_ros.records import Frame

log = logging.getLogger(__name__)

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
VIDEO = "foxglove_msgs/msg/CompressedVideo"
INFO = "sensor_msgs/msg/CameraInfo"
VIDEO_DEFINITION = """\
builtin_interfaces/Time timestamp
string frame_id
uint8[] data
string format
"""
"""For bags that do not hold the definitions of their messages."""
_CODED = ("CompressedVideo", "FFMPEGPacket", "theora_image_transport/msg/Packet")
_DEPTH_WORDS = ("depth", "disparity", "mask", "label", "infra")

_SAMPLED = 7
"""Images whose headers tell the usual size."""
_Decode = Callable[[], np.ndarray]
"""Makes the RGB image (H, W, 3) of a message."""


class BagSource:
    """Images of one topic, raw or compressed, with intrinsics from its camera info."""

    def __init__(
        self, path: Path, topic: str, camera_info: str | Path | None, max_pixels: int
    ) -> None:
        self._path, self._max_pixels, self.stretch = path, max_pixels, Stretch()
        self._cut = cut_files(path)
        with open_bag(path) as reader:
            if self._cut and not any(info.msgcount for info in reader.topics.values()):
                raise BadInput(f"{path} is cut off before its first message; try `mcap recover`")
            types = {c.topic: c.msgtype for c in reader.connections}
            counts = {name: info.msgcount for name, info in reader.topics.items()}
            self.topic = choose_topic(types, counts, topic, path)
            self._count = counts[self.topic]
            coded = (m for m in self._first(reader, 1) if not hasattr(m, "encoding"))
            self._codec = next(map(video_codec, coded), "")
            self._calibration = (
                load_calibration(camera_info)
                if camera_info
                else _find_camera_info(reader, self.topic)
            )
        parts = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        self.files = tuple(parts)
        known = f"intrinsics from {self._calibration.name}" if self._calibration else ""
        kind = f"packets of {codec_name(self._codec)} video" if self._codec else "images"
        self.description = (
            f"bag topic {self.topic}, {self._count} {kind}, {known or 'no intrinsics'}"
        )

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SourceImage]:
        number, name = 0, f"{self._path}: {self.topic}"
        self.stretch.rewind()
        with open_bag(self._path) as reader:
            check = SizeCheck(most_common(map(_told_size, self._first(reader, _SAMPLED))))
            for stamp_ns, rgb in sorted_closely(self._images(reader), name):
                load = partial(self._load, number, stamp_ns, rgb, check)
                yield SourceImage(number, stamp_ns, load)
                number += 1
        if self._cut or (number < self._count and not self._codec):
            cure = "; `mcap recover` repairs what is left" if self._cut else ""
            raise BadInput(
                f"{self._path} is cut off: {number} images on {self.topic} can be read{cure}"
            )

    def _images(self, reader: Any) -> Iterator[tuple[int, _Decode]]:
        """Stamps, and what decodes the image of each."""
        if self._codec:
            yield from self._video(reader)
            return
        for number, (stamp_ns, message) in enumerate(self._messages(reader)):
            name = f"{self._path}: image {number} on {self.topic}"
            yield stamp_ns, partial(decode_message, message, name, self._max_pixels, self.stretch)

    def _video(self, reader: Any) -> Iterator[tuple[int, _Decode]]:
        """The same of packets of video, which are decoded on the way."""
        name, found = f"{self._path}: {self.topic}", 0
        packets: PacketDecoder[int] = PacketDecoder(self._codec, name, self._max_pixels)
        for stamp_ns, message in self._messages(reader):
            for decoded in packets.feed(bytes(message.data), stamp_ns, stamp_ns):
                found += 1
                yield decoded.item, decoded.rgb
        for decoded in packets.flush():
            found += 1
            yield decoded.item, decoded.rgb
        if not found:
            raise BadInput(
                f"{name} has {self._count} packets of {codec_name(self._codec)} video, but none of "
                f"them holds an image"
            )

    def _messages(self, reader: Any) -> Iterator[tuple[int, Any]]:
        """Stamps and messages; without stamps of the camera, the times of recording are taken."""
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
            yield recorded_ns if unstamped else _stamp_ns(message), message

    def _starts_unstamped(self, reader: Any) -> bool:
        """Whether the first two images have no stamps: one alone may be taken at time zero, as in
        simulation."""
        return [_stamp_ns(message) for message in self._first(reader, 2)] == [0, 0]

    def _first(self, reader: Any, count: int) -> Iterator[Any]:
        connections = [c for c in reader.connections if c.topic == self.topic]
        for connection, _, data in islice(reader.messages(connections), count):
            yield reader.deserialize(data, connection.msgtype)

    def _load(self, number: int, stamp_ns: int, decode: _Decode, check: SizeCheck) -> Frame:
        rgb = check(decode(), f"{self._path}: image {number} on {self.topic}")
        return calibrated_frame(number, stamp_ns, rgb, self._calibration)


def _stamp_ns(message: Any) -> int:
    """Of a message with a header, or of foxglove's, which have a timestamp alone."""
    stamp = message.header.stamp if hasattr(message, "header") else message.timestamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def _told_size(message: Any) -> tuple[int, int] | None:
    """(width, height) of an image message; None if it does not tell, as packets of video."""
    if hasattr(message, "encoding"):
        return message.width, message.height
    return shown_size(bytes(message.data))


def choose_topic(types: dict[str, str], counts: dict[str, int], wanted: str, path: Path) -> str:
    """The wanted image topic, or the only colour one; raises `BadInput` and lists what there is."""
    images = sorted(t for t, kind in types.items() if kind in (RAW, COMPRESSED) and counts[t])
    video = sorted(t for t, kind in types.items() if kind == VIDEO and counts[t])
    images = images if images and wanted not in video else video
    listing = ", ".join(f"{t} ({counts[t]})" for t in images) or "none"
    if wanted:
        for name in (wanted, f"{wanted}/compressed"):
            if name in images:
                return name
        raise BadInput(f"{path} has no images on {wanted}; image topics: {listing}")
    if not images:
        if coded := sorted(t for t, kind in types.items() if kind.endswith(_CODED)):
            raise BadInput(
                f"{path} holds no images, but coded video on {', '.join(coded)} of a type that is "
                f"not read ({types[coded[0]]}); decode it to sensor_msgs/CompressedImage first"
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
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise BadInput("reading bags needs the library rosbags: pip install rosbags") from error
    errors = (AnyReaderError, ReaderError, sqlite3.Error, OSError, EOFError, AssertionError)
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(VIDEO_DEFINITION, VIDEO))
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
