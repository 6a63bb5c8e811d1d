"""Images as files and messages hold them, to RGB: the one decoder, live and offline.

A message is a `sensor_msgs/Image` or `sensor_msgs/CompressedImage` of any library: only its fields
are read. What is wrong with an image is a `BadInput`, never an exception of a library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from scal3r_ros.config import InputConfig
from scal3r_ros.io.image_header import KINDS, declared_size, is_cut_off
from scal3r_ros.io.source import BadInput

MAX_PIXELS: int = InputConfig().max_pixels


@dataclass(frozen=True)
class _Layout:
    """How one encoding of sensor_msgs/Image keeps its pixels."""

    channels: int
    to_rgb: Callable[[np.ndarray], np.ndarray]
    """From (H, W, channels) to (H, W, 3) uint8, or (H, W) and (H, W, 1) for grey."""
    dtype: str = "u1"
    even: bool = False
    """Whether only images of even width can exist."""


def _converted(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: cv2.cvtColor(pixels, code)


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """The high byte, as for image files of 16 bits."""
    return (pixels >> 8).astype(np.uint8)


_GREY = _Layout(1, lambda pixels: pixels)
_DEEP_GREY = _Layout(1, _eight_bits, "u2")
_BGR = _Layout(3, _converted(cv2.COLOR_BGR2RGB))
_BGRA = _Layout(4, _converted(cv2.COLOR_BGRA2RGB))
_UYVY = _Layout(2, _converted(cv2.COLOR_YUV2RGB_UYVY), even=True)
_YUYV = _Layout(2, _converted(cv2.COLOR_YUV2RGB_YUYV), even=True)
_LAYOUTS = {
    "rgb8": _Layout(3, lambda pixels: pixels),
    "bgr8": _BGR,
    "rgba8": _Layout(4, _converted(cv2.COLOR_RGBA2RGB)),
    "bgra8": _BGRA,
    "mono8": _GREY,
    "mono16": _DEEP_GREY,
    "8UC1": _GREY,
    "8UC3": _BGR,
    "8UC4": _BGRA,
    "16UC1": _DEEP_GREY,
    "bayer_rggb8": _Layout(1, _converted(cv2.COLOR_BayerRGGB2RGB), even=True),
    "bayer_bggr8": _Layout(1, _converted(cv2.COLOR_BayerBGGR2RGB), even=True),
    "bayer_gbrg8": _Layout(1, _converted(cv2.COLOR_BayerGBRG2RGB), even=True),
    "bayer_grbg8": _Layout(1, _converted(cv2.COLOR_BayerGRBG2RGB), even=True),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
}
ENCODINGS = tuple(_LAYOUTS)
"""Encodings of sensor_msgs/Image that are understood."""


def decode_message(message: Any, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """(H, W, 3) uint8 RGB copy of a raw or compressed image message; raises `BadInput`."""
    if hasattr(message, "encoding"):
        return decode_raw(message, name, max_pixels)
    return decode_compressed(bytes(message.data), name, max_pixels)


def decode_compressed(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a PNG, JPEG... to (H, W, 3) uint8 RGB; raises `BadInput` if it is damaged or cut.

    Grey becomes three channels, transparency is dropped. An EXIF orientation is applied, so that
    map and views are upright; Scal3R's own loader ignores it.
    """
    size = declared_size(data)
    if size is None:
        raise BadInput(
            f"{name} is no readable image ({len(data)} bytes, of no kind of {KINDS}, or cut off); "
            f"replace or remove it"
        )
    _check_size(*size, name, max_pixels)
    if is_cut_off(data):
        raise BadInput(f"{name} is cut off after {len(data)} bytes; replace or remove it")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadInput(f"{name} cannot be decoded: {error.err or error}") from error
    if image is None:
        raise BadInput(f"{name} is no readable image ({len(data)} bytes); replace or remove it")
    return np.ascontiguousarray(image[..., ::-1])


def decode_raw(message: Any, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode the fields of a `sensor_msgs/Image` to (H, W, 3) uint8 RGB; raises `BadInput`.

    Rows may be padded (`step`, 0 for tight ones), the last one may come without its padding.
    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise BadInput(
            f"{name}: image encoding {message.encoding!r} is not supported; supported: "
            f"{', '.join(ENCODINGS)}"
        )
    height, width = int(message.height), int(message.width)
    _check_size(width, height, name, max_pixels)
    if layout.even and width % 2:
        raise BadInput(f"{name}: {message.encoding} image with odd width {width}")
    dtype = np.dtype(layout.dtype)
    used = width * layout.channels * dtype.itemsize
    rows = _rows(message, height, used, name)
    wire = dtype.newbyteorder(">" if message.is_bigendian else "<")
    pixels = rows.view(wire).astype(dtype).reshape(height, width, layout.channels)
    rgb = layout.to_rgb(pixels)
    if rgb.ndim == 2 or rgb.shape[2] == 1:
        rgb = np.repeat(rgb.reshape(height, width, 1), 3, axis=2)
    return rgb


def _rows(message: Any, height: int, used: int, name: str) -> np.ndarray:
    """(H, used) uint8 copy of the rows without their padding."""
    data = np.frombuffer(message.data, np.uint8)
    step = int(message.step) or used
    if step < used:
        raise BadInput(f"{name}: image step {step} is below the {used} bytes of a row")
    if not (height - 1) * step + used <= len(data) <= height * step:
        raise BadInput(f"{name}: image holds {len(data)} bytes, expected {height} rows of {step}")
    if step == used:
        return data.reshape(height, step).copy()
    padded = np.zeros(height * step, np.uint8)
    padded[: len(data)] = data
    return np.ascontiguousarray(padded.reshape(height, step)[:, :used])


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BadInput(f"{name}: image of size {width} x {height}")
    if width * height > max_pixels:
        raise BadInput(
            f"{name} declares {width} x {height} pixels, more than input.max_pixels "
            f"({max_pixels}); scale the images down, or raise that option"
        )
