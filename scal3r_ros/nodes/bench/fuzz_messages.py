"""Random messages for every input of `mapping_node`, good ones and such as nobody should send.

Each comes with what the node has to do with it, so that its counters can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from tf2_msgs.msg import TFMessage

from scal3r_ros.io.image_header import declared_size
from scal3r_ros.nodes.base.conversions import fill, header

PERIOD_NS = 33_333_333
MAX_PIXELS = 20_000
"""What the node is told to take at most."""
WIDTH, HEIGHT = 64, 48


@dataclass(frozen=True)
class Sample:
    """A message and what becomes of it."""

    kind: str
    """`image`, `camera_info`, `odom`, `imu` or `tf`."""
    message: Any
    left_out: int = 0
    """How many of it the node leaves out as malformed: 1, or the bad transforms of a TF message."""


class Fuzzer:
    """A stream of samples; the images have stamps that rise, but for those that are bad."""

    def __init__(self, seed: int, compressed: bool) -> None:
        self._random = np.random.default_rng(seed)
        self._compressed = compressed
        self._frame = 0

    def sample(self) -> Sample:
        """The next message; half of them are images."""
        makers: dict[str, Callable[[], Sample]] = {
            "image": self.image, "camera_info": self.camera_info, "odom": self.odometry,
            "imu": self.imu, "tf": self.transforms,
        }  # fmt: skip
        kind = self._random.choice(list(makers), p=(0.5, 0.1, 0.2, 0.1, 0.1))
        return makers[str(kind)]()

    def image(self, bad: bool | None = None) -> Sample:
        """Of bad ones half have a bad header: those are counted by the stamps' guard."""
        bad = self._is_bad(bad)
        self._frame += 1
        stamp_ns = self._frame * PERIOD_NS
        if bad and self._one_in(2):
            return Sample("image", self._picture(int(self._pick(0, -1, -(10**15)))))
        if bad:
            make = self._bad_file if self._compressed else self._bad_picture
            return Sample("image", make(stamp_ns), 1)
        return Sample("image", self._picture(stamp_ns))

    def camera_info(self, bad: bool | None = None) -> Sample:
        """Calibrations; a driver that has none yet sends zeros, which is not an error."""
        bad = self._is_bad(bad)
        K = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
        message = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", k=K)
        message.d = [0.0] * 5
        if not bad:
            message.k = K if self._one_in(2) else [0.0] * 9
            return Sample("camera_info", message)
        flaw = self._pick("model", "count", "number", "focal", "row")
        if flaw == "model":
            message.distortion_model, message.d = "fuzzy", [0.1] * 5
        elif flaw == "count":
            message.d = [0.1] * int(self._pick(3, 6, 7, 9))
        elif flaw == "number":
            message.d = [float(self._pick(math.nan, math.inf))] * 5
        elif flaw == "focal":
            message.k = [-50.0, *K[1:]]
        else:
            message.k = [*K[:6], 1.0, 1.0, 1.0]
        return Sample("camera_info", message, 1)

    def odometry(self, bad: bool | None = None) -> Sample:
        """Poses of the base."""
        bad = self._is_bad(bad)
        message = Odometry(header=header("odom", self._now()), child_frame_id="base_link")
        message.pose.pose.orientation.w = 1.0
        message.pose.pose.position.x = 0.05 * self._frame
        if bad:
            flaw = self._pick("stamp", "turn", "place")
            if flaw == "stamp":
                message.header = header("odom", int(self._pick(0, -1, -(10**15))))
            elif flaw == "turn":
                message.pose.pose.orientation.w = float(self._pick(0.0, math.nan, math.inf))
            else:
                message.pose.pose.position.y = float(self._pick(math.nan, math.inf))
        return Sample("odom", message, int(bad))

    def imu(self, bad: bool | None = None) -> Sample:
        """Accelerations."""
        bad = self._is_bad(bad)
        message = Imu(header=header("camera_optical_frame", self._now()))
        message.linear_acceleration.y = -9.81
        if bad and self._one_in(2):
            message.header = header("camera_optical_frame", int(self._pick(0, -5)))
        elif bad:
            message.linear_acceleration.z = float(self._pick(math.nan, math.inf))
        return Sample("imu", message, int(bad))

    def transforms(self, bad: bool | None = None) -> Sample:
        """One to three; a loop of good ones is each for itself good."""
        count = int(self._random.integers(1, 4))
        flaws = [self._is_bad(bad) for _ in range(count)]
        return Sample("tf", TFMessage(transforms=[self._transform(f) for f in flaws]), sum(flaws))

    def _transform(self, bad: bool) -> TransformStamped:
        parent, child = self._random.choice(["a", "b", "c", "d", "e"], 2, replace=False)
        message = TransformStamped(header=header(str(parent), self._now()))
        message.child_frame_id = str(child)
        message.transform.rotation.w = 1.0
        message.transform.translation.x = float(self._random.normal())
        if bad:
            flaw = self._pick("turn", "place", "child", "parent", "same", "stamp")
            if flaw == "turn":
                message.transform.rotation.w = float(self._pick(0.0, math.nan))
            elif flaw == "place":
                message.transform.translation.z = float(self._pick(math.nan, math.inf))
            elif flaw == "child":
                message.child_frame_id = ""
            elif flaw == "parent":
                message.header.frame_id = "/"
            elif flaw == "same":
                message.child_frame_id = message.header.frame_id
            else:
                message.header = header(str(parent), -7)
        return message

    def _picture(self, stamp_ns: int) -> Any:
        pixels = self._random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        head = header("camera_optical_frame", stamp_ns)
        if self._compressed:
            return _file(head, cv2.imencode(".png", pixels)[1])
        data = fill(pixels, "B")
        return Image(header=head, height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH,
                     data=data)  # fmt: skip

    def _bad_picture(self, stamp_ns: int) -> Image:
        message = self._picture(stamp_ns)
        flaw = self._pick("encoding", "data", "short", "step", "size", "zero")
        if flaw == "encoding":
            message.encoding = str(self._pick("", "hsv9", "rgb8; drop", "\u00e4"))
        elif flaw == "data":
            message.data = []
        elif flaw == "short":
            message.data = message.data[: int(self._random.integers(1, WIDTH * HEIGHT))]
        elif flaw == "step":
            message.step = int(self._random.integers(1, 3 * WIDTH))
        elif flaw == "size":
            message.width, message.height = int(self._pick(50_000, 2**32 - 1)), 50_000
        else:
            message.height = 0
        return message

    def _bad_file(self, stamp_ns: int) -> CompressedImage:
        head = header("camera_optical_frame", stamp_ns)
        whole = cv2.imencode(".png", self._random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))[1]
        large = cv2.imencode(".png", np.zeros((200, 200, 3), np.uint8))[1]
        noise = self._random.integers(0, 255, int(self._random.integers(1, 300)), np.uint8)
        if declared_size(noise.tobytes()) is not None:
            noise = noise[:0]  # a picture by chance
        return _file(head, (noise[:0], noise, whole[: len(whole) // 2], large)[self._below(4)])

    def _now(self) -> int:
        return max(1, self._frame) * PERIOD_NS

    def _is_bad(self, bad: bool | None) -> bool:
        return self._one_in(3) if bad is None else bad

    def _one_in(self, count: int) -> bool:
        return self._below(count) == 0

    def _below(self, count: int) -> int:
        return int(self._random.integers(count))

    def _pick(self, *choices: Any) -> Any:
        return choices[self._below(len(choices))]


def _file(head: Any, data: np.ndarray) -> CompressedImage:
    return CompressedImage(header=head, format="png", data=fill(data.ravel(), "B"))
