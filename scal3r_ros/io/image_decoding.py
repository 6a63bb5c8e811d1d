"""Images as files and messages hold them, to RGB: the one decoder, live and offline.

A message is a `sensor_msgs/Image` or `sensor_msgs/CompressedImage` of any library: only its fields
are read. What is wrong with an image is a `BadInput`, never an exception of a library.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from scal3r_ros.config import InputConfig
from scal3r_ros.io.image_header import IMAGE_KINDS, declared_size, has_end, is_heif, is_progressive
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.stretch import Stretch
from scal3r_ros.io.video_packets import codec_name, video_codec

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
    half_rows: int = 2
    """Rows of data per two rows of pixels: 3 where colours at half the size follow."""


def _converted(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: cv2.cvtColor(pixels, code)


_GREY = _Layout(1, lambda pixels: pixels)
_DEEP_GREY = _Layout(1, lambda pixels: pixels, "u2")
_RGB = _Layout(3, lambda pixels: pixels)
_BGR = _Layout(3, _converted(cv2.COLOR_BGR2RGB))
_RGBA = _Layout(4, _converted(cv2.COLOR_RGBA2RGB))
_BGRA = _Layout(4, _converted(cv2.COLOR_BGRA2RGB))
_UYVY = _Layout(2, _converted(cv2.COLOR_YUV2RGB_UYVY), even=True)
_YUYV = _Layout(2, _converted(cv2.COLOR_YUV2RGB_YUYV), even=True)
_BAYER = {
    pattern: _Layout(1, _converted(getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB")), even=True)
    for pattern in ("rggb", "bggr", "gbrg", "grbg")
}


def _deep(layout: _Layout) -> _Layout:
    return replace(layout, dtype="u2")


_LAYOUTS = {
    "rgb8": _RGB,
    "bgr8": _BGR,
    "rgba8": _RGBA,
    "bgra8": _BGRA,
    "mono8": _GREY,
    "mono16": _DEEP_GREY,
    "8UC1": _GREY,
    "8UC3": _BGR,
    "8UC4": _BGRA,
    "16UC1": _DEEP_GREY,
    "16UC3": _deep(_BGR),
    "16UC4": _deep(_BGRA),
    "rgb16": _deep(_RGB),
    "bgr16": _deep(_BGR),
    "rgba16": _deep(_RGBA),
    "bgra16": _deep(_BGRA),
    **{f"bayer_{pattern}8": layout for pattern, layout in _BAYER.items()},
    **{f"bayer_{pattern}16": _deep(layout) for pattern, layout in _BAYER.items()},
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": _Layout(1, _converted(cv2.COLOR_YUV2RGB_NV12), even=True, half_rows=3),
    "nv21": _Layout(1, _converted(cv2.COLOR_YUV2RGB_NV21), even=True, half_rows=3),
}
ENCODINGS = tuple(_LAYOUTS)
"""Encodings of sensor_msgs/Image that are understood."""


_JPEG_END = b"\xff\xd9"


def decode_message(
    message: Any, name: str, max_pixels: int = MAX_PIXELS, stretch: Stretch | None = None
) -> np.ndarray:
    """(H, W, 3) uint8 RGB copy of a raw or compressed image message; raises `BadInput`.

    `stretch`: of the stream, for images of more than 8 bits.
    """
    if hasattr(message, "encoding"):
        return decode_raw(message, name, max_pixels, stretch)
    if codec := video_codec(message):
        raise BadInput(
            f"{name} is a packet of {codec_name(codec)} video, no image of its own; publish it as "
            f"JPEG, or record it with `republish` of image_transport"
        )
    return decode_compressed(bytes(message.data), name, max_pixels, stretch, message.format)


def decode_compressed(
    data: bytes,
    name: str,
    max_pixels: int = MAX_PIXELS,
    stretch: Stretch | None = None,
    announced: str = "",
) -> np.ndarray:
    """Decode a PNG, JPEG... to (H, W, 3) uint8 RGB; raises `BadInput` if it is damaged or cut.

    Grey becomes three channels, transparency is dropped, more than 8 bits are stretched. An EXIF
    orientation is applied, so that map and views are upright; Scal3R's own loader ignores it.
    `announced`: format of the message; a grey image of a bayer camera is demosaiced.
    """
    size = declared_size(data)
    if size is None:
        what = "is empty" if not data else "is no readable image"
        raise BadInput(
            f"{name} {what} ({len(data)} bytes, of no kind of {IMAGE_KINDS}, or cut off); replace "
            f"or remove it"
        )
    check_size(*size, name, max_pixels)
    if not has_end(data):
        if not _is_whole_without_end(data):
            raise BadInput(f"{name} is cut off after {len(data)} bytes; replace or remove it")
        data += _JPEG_END
    image = _read_heif(data, name) if is_heif(data) else _read(data, name, cv2.IMREAD_ANYDEPTH)
    shallow = (stretch or Stretch())(image)
    if (bayer := re.match(r"bayer_([a-z]{4})", announced)) and bayer[1] in _BAYER:
        grey = shallow[..., 0]
        if not (shallow != grey[..., None]).any() and grey.shape[1] % 2 == 0:
            return _BAYER[bayer[1]].to_rgb(np.ascontiguousarray(grey))
    return np.ascontiguousarray(shallow[..., ::-1])


def _read(data: bytes, name: str, flags: int = 0) -> np.ndarray:
    """(H, W, 3) BGR of one of OpenCV's kinds."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | flags)
    except cv2.error as error:
        raise BadInput(f"{name} cannot be decoded: {error.err or error}") from error
    if image is None or image.ndim != 3:
        raise BadInput(f"{name} is no readable image ({len(data)} bytes); replace or remove it")
    return image


def _read_heif(data: bytes, name: str) -> np.ndarray:
    """(H, W, 3) uint8 BGR of a photo of a phone, by the optional library pillow-heif."""
    try:
        import pillow_heif
    except ImportError as error:
        raise BadInput(
            f"{name} is a HEIC image, which needs the library pillow-heif: pip install pillow-heif"
        ) from error
    try:
        photo = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        pixels = np.asarray(photo)
    except (ValueError, RuntimeError, EOFError, SyntaxError) as error:
        raise BadInput(f"{name} cannot be decoded: {error}") from error
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    return np.ascontiguousarray(pixels[..., 2::-1])


def _is_whole_without_end(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker alone, as some webcams send it.

    Without its last bytes only the last blocks change; of an image that is cut off, those where the
    cut is.
    """
    if not data.startswith(b"\xff\xd8") or is_progressive(data):
        return False
    try:
        whole, shorter = (_read(part + _JPEG_END, "JPEG") for part in (data, data[:-8]))
    except BadInput:
        return False
    changed = np.argwhere((whole != shorter).any(axis=2))
    return len(changed) > 0 and bool(changed[:, 0].min() >= whole.shape[0] - 18)


def decode_raw(
    message: Any, name: str, max_pixels: int = MAX_PIXELS, stretch: Stretch | None = None
) -> np.ndarray:
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
    check_size(width, height, name, max_pixels)
    if layout.even and (width % 2 or (layout.half_rows == 3 and height % 2)):
        raise BadInput(
            f"{name}: {message.encoding} image with odd width or height, {width} x {height}"
        )
    dtype = np.dtype(layout.dtype)
    used, height = width * layout.channels * dtype.itemsize, height * layout.half_rows // 2
    rows = _rows(message, height, used, name)
    wire = dtype.newbyteorder(">" if message.is_bigendian else "<")
    pixels = rows.view(wire).astype(dtype).reshape(height, width, layout.channels)
    rgb = layout.to_rgb((stretch or Stretch())(pixels))
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


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Raise `BadInput` for a size that no image has, or that is too large."""
    if width < 1 or height < 1:
        raise BadInput(f"{name}: image of size {width} x {height}")
    if width * height > max_pixels:
        raise BadInput(
            f"{name} declares {width} x {height} pixels, more than input.max_pixels "
            f"({max_pixels}); scale the images down, or raise that option"
        )
