"""A video file through OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from scal3r_ros.files import open_regular
from scal3r_ros.io.calibration import calibrated_frame
from scal3r_ros.io.calibration_files import find_calibration
from scal3r_ros.io.image_decoding import MAX_PIXELS, check_size
from scal3r_ros.io.source import BadInput, SourceImage
from scal3r_ros.io.stretch import Stretch
from scal3r_ros.io.video_kinds import BARE, video_kind
from scal3r_ros.records import Frame


class VideoSource:
    """Frames of a video, stamped with their time in it."""

    def __init__(
        self, path: Path, camera_info: str | Path | None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._path, self.stretch = path, Stretch()
        self._calibration = find_calibration([path.parent], camera_info)
        capture = self._open()
        self._count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self._fps = capture.get(cv2.CAP_PROP_FPS)
        width, height = (
            int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        capture.release()
        check_size(width, height, str(path), max_pixels)
        if video_kind(path) in BARE and not 0.1 <= self._fps <= 1000:
            self._fps = 25.0  # a stream without a container states no rate
        if not 0.1 <= self._fps <= 1000:
            raise BadInput(f"{path} states {self._fps} frames per second; re-encode it")
        self.files: tuple[Path, ...] = (path,)
        known = "intrinsics from camera_info.yaml" if self._calibration else "no intrinsics"
        self.description = f"video of {self._count} frames at {self._fps:g} Hz, {known}"

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SourceImage]:
        capture = self._open()
        number, last_ns = 0, -1
        try:
            while capture.grab():
                stamp_ns = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                if stamp_ns <= last_ns:
                    stamp_ns = last_ns + round(1e9 / self._fps)
                last_ns = stamp_ns
                load = partial(self._load, capture, number, stamp_ns)
                yield SourceImage(number, stamp_ns, load)
                number += 1
        finally:
            capture.release()
        if number == 0:
            raise BadInput(f"{self._path} holds no readable frame; re-encode it")
        if is_cut_container(self._path) and number < self._count:
            raise BadInput(f"{self._path} is cut off: {number} of {self._count} frames can be read")

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            if is_cut_container(self._path):
                raise BadInput(
                    f"{self._path} is cut off before its index, without which nothing of it can be "
                    f"read; a tool such as untrunc may rebuild it"
                )
            raise BadInput(f"{self._path} is no readable video; re-encode it")
        return capture

    def _load(self, capture: cv2.VideoCapture, number: int, stamp_ns: int) -> Frame:
        readable, image = capture.retrieve()
        if not readable:
            raise BadInput(f"{self._path}: frame {number} cannot be decoded; re-encode it")
        rgb = np.ascontiguousarray(image[..., ::-1])
        return calibrated_frame(number, stamp_ns, rgb, self._calibration)


def is_cut_container(path: Path) -> bool:
    """Whether an MP4, MOV, AVI or other file is shorter than its own structure says.

    Counts of frames lie: edit lists and late starts show fewer.
    """
    size = path.stat().st_size
    with open_regular(path) as file:
        head = file.read(12)
        if head[:4] == b"RIFF":
            return size < int.from_bytes(head[4:8], "little") + 8
        if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
            return False
        at = 0
        while at + 8 <= size:
            file.seek(at)
            length = int.from_bytes(file.read(4), "big")
            if length == 1:
                file.seek(at + 8)
                length = int.from_bytes(file.read(8), "big")
            if length < 8:
                return False  # to the end of the file
            at += length
        return at > size
