"""Stand-in for cv_bridge: image messages to numpy arrays and back."""

from __future__ import annotations

import array
import re
import sys

import numpy as np

# cv_bridge names a Bayer pattern by its first row; OpenCV by the second row's second and third.
_BAYER = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}
_YUV = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUY2", "yuyv": "YUY2"}
_COLOURS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "mono": 1}
_TYPES = {"8U": "u1", "8S": "i1", "16U": "u2", "16S": "i2", "32S": "i4", "32F": "f4", "64F": "f8"}


class CvBridgeError(TypeError):
    """The encoding is not known, or cannot be converted into the one asked for."""


class CvBridge:
    """Converts between sensor_msgs images and numpy arrays."""

    def imgmsg_to_cv2(self, img_msg, desired_encoding: str = "passthrough") -> np.ndarray:
        """Pixels of an image message, (H, W) or (H, W, channels), in `desired_encoding`."""
        image = _pixels(img_msg)
        if desired_encoding in ("passthrough", img_msg.encoding):
            return image
        return _convert(image, img_msg.encoding, desired_encoding)

    def compressed_imgmsg_to_cv2(self, cmprs_img_msg, desired_encoding: str = "passthrough"):
        """Decode a JPEG or PNG message to 8-bit colour; `passthrough` is blue, green, red."""
        import cv2

        data = np.frombuffer(cmprs_img_msg.data, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if image is None:
            raise CvBridgeError(f"cannot decode {len(data)} bytes of {cmprs_img_msg.format!r}")
        if desired_encoding in ("passthrough", "bgr8"):
            return image
        return _convert(image, "bgr8", desired_encoding)

    def cv2_to_imgmsg(self, cvim: np.ndarray, encoding: str = "passthrough", header=None):
        """Message of an array; a name such as 32FC1 is found when `encoding` is passthrough."""
        from sensor_msgs.msg import Image

        channels = 1 if cvim.ndim == 2 else cvim.shape[2]
        if encoding == "passthrough":
            kind = {"u": "U", "i": "S", "f": "F"}[cvim.dtype.kind]
            encoding = f"{8 * cvim.itemsize}{kind}C{channels}"
        dtype, expected = _layout(encoding)
        if (cvim.dtype, channels) != (dtype, expected):
            raise CvBridgeError(
                f"encoding {encoding} needs {expected} channels of {dtype}, found {channels} of "
                f"{cvim.dtype}"
            )
        message = Image(height=cvim.shape[0], width=cvim.shape[1], encoding=encoding)
        if header is not None:
            message.header = header
        message.is_bigendian = sys.byteorder == "big"
        message.step = cvim.shape[1] * channels * cvim.itemsize
        message.data = array.array("B")
        message.data.frombytes(np.ascontiguousarray(cvim).data.cast("B"))
        return message


def _layout(encoding: str) -> tuple[np.dtype, int]:
    """Element type and number of channels of an encoding."""
    colour = re.fullmatch(r"([a-z]+)(8|16)", encoding)
    if colour and colour[1] in _COLOURS:
        return np.dtype(f"u{int(colour[2]) // 8}"), _COLOURS[colour[1]]
    if re.fullmatch(r"bayer_[rgb]{4}(8|16)", encoding):
        return np.dtype("u1" if encoding.endswith("8") else "u2"), 1
    if encoding in _YUV:
        return np.dtype("u1"), 2
    generic = re.fullmatch(r"(8U|8S|16U|16S|32S|32F|64F)(?:C([1-9]))?", encoding)
    if generic:
        return np.dtype(_TYPES[generic[1]]), int(generic[2] or 1)
    raise CvBridgeError(f"unrecognized image encoding [{encoding}]")


def _pixels(message) -> np.ndarray:
    """Copy of the pixels without padding, in this machine's byte order."""
    dtype, channels = _layout(message.encoding)
    wire = dtype.newbyteorder(">" if message.is_bigendian else "<")
    row_bytes = message.width * channels * dtype.itemsize
    rows = np.frombuffer(message.data, np.uint8, message.height * message.step)
    rows = np.ascontiguousarray(rows.reshape(message.height, message.step)[:, :row_bytes])
    image = rows.view(wire).astype(dtype)
    return image if channels == 1 else image.reshape(message.height, message.width, channels)


def _convert(image: np.ndarray, source: str, target: str) -> np.ndarray:
    """Between colour encodings, through RGB."""
    match = re.fullmatch(r"(rgb|bgr|rgba|bgra|mono)(8|16)", target)
    if not match:
        raise CvBridgeError(f"cannot convert {source} into {target}")
    rgb = _to_rgb(image, source)
    rgb = _change_depth(rgb, int(match[2]))
    if match[1] == "mono":
        return _grey(rgb) if rgb.ndim == 3 else rgb
    if rgb.ndim == 2:
        rgb = np.repeat(rgb[..., None], 3, axis=2)
    ordered = rgb if match[1].startswith("rgb") else rgb[..., ::-1]
    if match[1].endswith("a"):
        opaque = np.full((*rgb.shape[:2], 1), np.iinfo(rgb.dtype).max, rgb.dtype)
        ordered = np.concatenate([ordered, opaque], axis=2)
    return np.ascontiguousarray(ordered)


def _to_rgb(image: np.ndarray, source: str) -> np.ndarray:
    """(H, W, 3) red first, or (H, W) grey."""
    if source.startswith("bayer_"):
        import cv2

        code = getattr(cv2, f"COLOR_Bayer{_BAYER[source[6:10]]}2RGB")
        return cv2.cvtColor(image, code)
    if source in _YUV:
        import cv2

        return cv2.cvtColor(image, getattr(cv2, f"COLOR_YUV2RGB_{_YUV[source]}"))
    if source.startswith("mono"):
        return image
    if source.startswith("rgb"):
        return image[..., :3]
    if source.startswith("bgr"):
        return image[..., 2::-1]
    raise CvBridgeError(f"encoding {source} says nothing about colours")


def _change_depth(image: np.ndarray, bits: int) -> np.ndarray:
    if 8 * image.itemsize == bits:
        return image
    ratio = 255.0 / 65535.0 if bits == 8 else 65535.0 / 255.0
    return np.rint(image * np.float32(ratio)).astype(f"u{bits // 8}")


def _grey(rgb: np.ndarray) -> np.ndarray:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.rint(rgb @ weights).astype(rgb.dtype)
