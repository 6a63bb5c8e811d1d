"""Bytes of a file or message to an RGB image; also what a live image callback needs."""

from __future__ import annotations

import cv2
import numpy as np

from scal3r_ros.io.source import BadInput

_CHANNELS = {
    "mono8": (1, None),
    "8UC1": (1, None),
    "rgb8": (3, None),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2RGB),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUYV),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUYV),
}


def decode_compressed(data: bytes, name: str) -> np.ndarray:
    """Decode a PNG, JPEG... to (H, W, 3) uint8 RGB; raises `BadInput` if it is damaged or cut.

    Grey becomes three channels, transparency is dropped. An EXIF orientation is applied, so that
    map and views are upright; the published loader ignores it.
    """
    _check_complete(data, name)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise BadInput(f"{name} is no readable image ({len(data)} bytes); replace or remove it")
    return np.ascontiguousarray(image[..., ::-1])


def decode_raw(
    data: bytes | np.ndarray, width: int, height: int, step: int, encoding: str, name: str
) -> np.ndarray:
    """Decode the fields of a `sensor_msgs/Image` to (H, W, 3) uint8 RGB; raises `BadInput`."""
    buffer = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.asarray(data)
    if encoding == "mono16" or encoding == "16UC1":
        rows = _rows(buffer, height, step, width * 2, name)
        high = rows.reshape(height, width, 2)[..., 1]
        return np.repeat(high[..., None], 3, axis=2)
    if encoding not in _CHANNELS:
        raise BadInput(
            f"{name}: image encoding {encoding!r} is not supported; supported: "
            f"{', '.join(_CHANNELS)}, mono16"
        )
    channels, conversion = _CHANNELS[encoding]
    image = _rows(buffer, height, step, width * channels, name).reshape(height, width, channels)
    if conversion is not None:
        return cv2.cvtColor(np.ascontiguousarray(image), conversion)
    return np.repeat(image, 3, axis=2) if channels == 1 else np.ascontiguousarray(image)


def _rows(buffer: np.ndarray, height: int, step: int, used: int, name: str) -> np.ndarray:
    step = step or used
    if height < 1 or used < 1 or step < used or buffer.size < step * (height - 1) + used:
        raise BadInput(
            f"{name}: {buffer.size} bytes are too few for {height} rows of {step} (used {used})"
        )
    padded = np.zeros(height * step, np.uint8)
    padded[: min(buffer.size, padded.size)] = buffer[: padded.size]
    return padded.reshape(height, step)[:, :used]


def _check_complete(data: bytes, name: str) -> None:
    # OpenCV decodes a cut JPEG or PNG without complaint and fills the rest with grey.
    cut_jpeg = data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:]
    cut_png = data[:4] == b"\x89PNG" and b"IEND" not in data[-64:]
    if cut_jpeg or cut_png:
        raise BadInput(f"{name} is cut off after {len(data)} bytes; replace or remove it")
