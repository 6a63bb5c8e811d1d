"""Camera messages to arrays and back: raw and compressed images, depth, calibration.

Free functions; what a message gets wrong is a `ValueError` that says what was found and expected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from scal3r_ros.nodes.base.conversions import fill, header
from scal3r_ros.nodes.base.ros_compat import CvBridge, CvBridgeError

_BYTES_PER_PIXEL = {
    "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "mono16": 2, "8UC1": 1, "8UC3": 3,
    "bayer_rggb8": 1, "bayer_bggr8": 1, "bayer_gbrg8": 1, "bayer_grbg8": 1,
    "yuv422": 2, "uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2,
}  # fmt: skip
ENCODINGS = tuple(_BYTES_PER_PIXEL)
"""Image encodings that are understood."""
_SYNONYMS = {"8UC1": "mono8", "8UC3": "bgr8", "uyvy": "yuv422", "yuyv": "yuv422_yuy2"}
_EVEN_SIZED = ("bayer", "yuv", "uyvy", "yuyv")


@dataclass(frozen=True)
class Calibration:
    """A camera's pinhole matrix and lens distortion, as calibrated."""

    width: int
    height: int
    K: np.ndarray
    """(3, 3) float64, pixels, pixel centres as in ROS: column 0 has its centre at 0."""
    distortion: np.ndarray
    """(D,) float64 coefficients of `model`; empty when the image is rectified."""
    model: str
    """plumb_bob, rational_polynomial, equidistant or empty."""

    @property
    def distorted(self) -> bool:
        return bool(np.any(self.distortion))


def image_to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """(H, W, 3) uint8 copy of a raw or compressed image; `ValueError` if it is malformed."""
    try:
        if isinstance(message, CompressedImage):
            return CvBridge().compressed_imgmsg_to_cv2(message, "rgb8")
        rgb = CvBridge().imgmsg_to_cv2(_checked_image(message), "rgb8")
    except CvBridgeError as error:
        raise ValueError(str(error)) from error
    return rgb.copy() if not rgb.flags.owndata or not rgb.flags.writeable else rgb


def _checked_image(message: Image) -> Image:
    """The same image in tight rows, native byte order and an encoding every cv_bridge knows."""
    encoding = message.encoding
    if encoding not in _BYTES_PER_PIXEL:
        raise ValueError(f"image encoding {encoding!r}; supported: {', '.join(ENCODINGS)}")
    height, width, step = message.height, message.width, message.step
    if not height or not width:
        raise ValueError(f"image of size {width} x {height}")
    if encoding.startswith(_EVEN_SIZED) and width % 2:
        raise ValueError(f"{encoding} image with odd width {width}")
    row = width * _BYTES_PER_PIXEL[encoding]
    if step < row:
        raise ValueError(
            f"image step {step} is below the {row} bytes of a row of {width} {encoding}"
        )
    # The last row may come without its padding.
    if not (height - 1) * step + row <= len(message.data) <= height * step:
        raise ValueError(f"image holds {len(message.data)} bytes, expected {height} rows of {step}")
    name = _SYNONYMS.get(encoding, encoding)
    foreign = message.is_bigendian and encoding == "mono16"
    if step == row and not foreign and name == encoding:
        return message
    tight = Image(header=message.header, height=height, width=width, encoding=name, step=row)
    pixels = np.zeros(height * step, np.uint8)
    pixels[: len(message.data)] = np.frombuffer(message.data, np.uint8)
    pixels = np.ascontiguousarray(pixels.reshape(height, step)[:, :row])
    if foreign:
        pixels = pixels.view(">u2").astype("<u2").view(np.uint8)
    tight.data = fill(pixels, "B")
    return tight


def depth_to_image(depth: np.ndarray, frame_id: str, stamp_ns: int) -> Image:
    """Message of an (H, W) float32 depth image, NaN where there is none (REP 118)."""
    return CvBridge().cv2_to_imgmsg(depth.astype(np.float32), "32FC1", header(frame_id, stamp_ns))


def camera_info_to_calibration(message: CameraInfo) -> Calibration:
    """Calibration of a camera, for the size that its images have.

    Raises `ValueError` for an uncalibrated camera (first entry of K zero, REP 104), numbers that
    are not finite, or an unknown distortion model. Binning and region of interest are applied.
    """
    K, distortion = np.array(message.k, float).reshape(3, 3), np.array(message.d, float)
    if not np.isfinite(K).all() or not np.isfinite(distortion).all():
        raise ValueError("camera_info holds numbers that are not finite")
    if not K[0, 0] > 0 or not K[1, 1] > 0:
        raise ValueError(f"camera_info is uncalibrated: focal lengths {K[0, 0]}, {K[1, 1]}")
    if not message.width or not message.height:
        raise ValueError(f"camera_info of size {message.width} x {message.height}")
    model = message.distortion_model
    if np.any(distortion) and model not in ("plumb_bob", "rational_polynomial", "equidistant"):
        raise ValueError(f"camera_info has an unknown distortion model {model!r}")
    window = message.roi
    K[0, 2] -= window.x_offset
    K[1, 2] -= window.y_offset
    columns, rows = max(message.binning_x, 1), max(message.binning_y, 1)
    # Binning averages `columns` pixels, so the new column 0 has its centre half a bin to the right.
    K[0] /= columns
    K[1] /= rows
    K[0, 2] -= (columns - 1) / (2 * columns)
    K[1, 2] -= (rows - 1) / (2 * rows)
    width = (window.width or message.width) // columns
    height = (window.height or message.height) // rows
    return Calibration(width, height, K, distortion, model)


def pinhole_camera_info(
    K: np.ndarray, width: int, height: int, frame_id: str, stamp_ns: int
) -> CameraInfo:
    """CameraInfo of a rectified image, `K` (3, 3) with ROS's pixel centres."""
    P = np.zeros((3, 4))
    P[:, :3] = K
    return CameraInfo(
        header=header(frame_id, stamp_ns),
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=K.astype(float).reshape(-1),
        r=np.eye(3).reshape(-1),
        p=P.reshape(-1),
    )
