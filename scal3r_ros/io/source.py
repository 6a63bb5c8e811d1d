"""Where frames come from offline: a folder of images, a video or a rosbag2, all read lazily."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from scal3r_ros.records import Frame

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")
BAG_SUFFIXES = (".db3", ".mcap")


class BadInput(ValueError):
    """The input cannot be used (further); the message names the file, what was found and what to
    do."""


@dataclass(frozen=True)
class SourceImage:
    """One image of a source, not yet decoded, so that the frame gate can refuse it for free."""

    id: int
    """Position in the source; frames that the mapper gets are numbered after the gate."""
    stamp_ns: int
    decode: Callable[[], Frame]
    """Decodes and rectifies; raises `BadInput`. Call before asking for the next image."""


class FrameSource(Protocol):
    """Images in order of time."""

    description: str
    """For the report: what is read, and where stamps and intrinsics come from."""

    def __len__(self) -> int:
        """Number of images, 0 when it is not known in advance."""

    def __iter__(self) -> Iterator[SourceImage]:
        """Images from the start; may be called again. Raises `BadInput`."""


def open_source(
    path: str | Path, topic: str = "", rate: float = 10.0, camera_info: str | Path | None = None
) -> FrameSource:
    """Choose the reader for `path`; raises `BadInput`.

    `topic` chooses the image topic of a bag, `rate` (Hz) gives stamps to images that have none,
    `camera_info` is a ROS camera calibration file that replaces the one found beside the images.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    is_bag = path.suffix in BAG_SUFFIXES or (path / "metadata.yaml").is_file()
    if path.is_dir() and not is_bag:
        is_bag = any(item.suffix in BAG_SUFFIXES for item in path.iterdir())
    if is_bag:
        from scal3r_ros.io.bag import BagSource

        return BagSource(path, topic, camera_info)
    if topic:
        raise BadInput(f"{path} is no bag, so it has no topic {topic}; leave --topic out")
    if path.is_dir():
        from scal3r_ros.io.folder import FolderSource

        return FolderSource(path, rate, camera_info)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        from scal3r_ros.io.video import VideoSource

        return VideoSource(path, camera_info)
    raise BadInput(
        f"{path} is not a folder of images, a video ({' '.join(VIDEO_SUFFIXES)}) or a rosbag2 "
        f"(folder, {' '.join(BAG_SUFFIXES)})"
    )


class SizeCheck:
    """Refuses an image whose size differs from the first one's."""

    def __init__(self) -> None:
        self._first: tuple[tuple[int, ...], str] | None = None

    def __call__(self, rgb: np.ndarray, name: str) -> np.ndarray:
        """Return `rgb` (H, W, 3) if it has the size of the first image; raises `BadInput`."""
        size = rgb.shape[1::-1]
        if self._first is None:
            self._first = (size, name)
        elif size != self._first[0]:
            (width, height), first = self._first
            raise BadInput(
                f"{name} is {size[0]} x {size[1]}, but {first} is {width} x {height}; all images "
                f"must have one size"
            )
        return rgb
