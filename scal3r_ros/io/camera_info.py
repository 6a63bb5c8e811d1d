"""Calibration from `sensor_msgs/CameraInfo`; what cannot be used is a `BadInput` that says why.

Only the fields of a message are read, so that it may be of any library: live and offline.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from scal3r_ros.io.calibration import Calibration
from scal3r_ros.io.source import BadInput

_COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (4, 5, 8), "equidistant": (4,)}
"""How many coefficients each distortion model of ROS has."""
_PADDED = (5, 8, 12, 14)
"""Counts that drivers fill up to with zeros: those that OpenCV knows."""


def calibration_from_info(message: Any, name: str, rectified: bool = False) -> Calibration | None:
    """Calibration of the images that come with a `sensor_msgs/CameraInfo`.

    None if the camera says that it is uncalibrated (first entry of K zero, REP 104). `rectified`:
    the images are already, so P holds and there is no distortion. Binning and region of interest
    are applied. Raises `BadInput` for values that cannot be a calibration.
    """
    K = matrix_3x3(message.k, name)
    if K[0, 0] == 0:
        return None
    if rectified:
        K, distortion, model = _projection(message, K, name), np.zeros(5), "plumb_bob"
    else:
        distortion, model = lens(message.d, message.distortion_model, name)
    check_pinhole(K, name)
    window, bins = message.roi, (max(message.binning_x, 1), max(message.binning_y, 1))
    K[:2, 2] -= (window.x_offset, window.y_offset)
    # Binning averages pixels, so the new column 0 has its centre half a bin to the right.
    K[:2] /= np.array(bins)[:, None]
    K[:2, 2] -= [(count - 1) / (2 * count) for count in bins]
    width = int(window.width or message.width) // bins[0]
    height = int(window.height or message.height) // bins[1]
    if not width or not height:
        width = height = 0
    return Calibration(width, height, K, distortion, model, name)


def is_rectified_topic(topic: str) -> bool:
    """Whether the images of a topic are rectified by the naming of image_proc: image_rect*."""
    base = re.sub(r"/(compressed|theora|ffmpeg)$", "", topic)
    return base.rsplit("/", 1)[-1].startswith("image_rect")


def matrix_3x3(values: Any, name: str) -> np.ndarray:
    """K of its nine numbers."""
    K = _numbers(values, "K", name)
    if K.size != 9:
        raise BadInput(f"{name}: K (camera_matrix) needs 9 numbers, found {K.size}")
    return K.reshape(3, 3)


def check_pinhole(K: np.ndarray, name: str) -> None:
    """Raise `BadInput` for a matrix that no camera has."""
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise BadInput(f"{name}: focal lengths must be positive, found {K[0, 0]} and {K[1, 1]}")
    if not np.allclose(K[2], (0, 0, 1)) or K[1, 0] != 0:
        raise BadInput(f"{name}: K must be a pinhole matrix whose last row is 0 0 1, found {K}")


def _projection(message: Any, K: np.ndarray, name: str) -> np.ndarray:
    """Pinhole matrix of rectified images; K where P is not filled in and nothing was distorted."""
    P = _numbers(message.p, "P", name)
    if P.size == 12 and P[0] > 0:
        return P.reshape(3, 4)[:, :3].copy()
    if np.any(message.d):
        raise BadInput(
            f"{name}: images of a rectified topic need P, which is not filled in; use the raw "
            f"images"
        )
    return K


def lens(values: Any, model: Any, name: str) -> tuple[np.ndarray, str]:
    """Coefficients and model; whatever the model is called, zeros mean no distortion.

    Raises `BadInput` for a model that is not known or has another number of coefficients.
    """
    coefficients = _numbers(values, "D", name)
    if not coefficients.any():
        return np.zeros(5), "plumb_bob"
    if model not in _COEFFICIENTS:
        hint = "; OpenCV's fisheye model is called equidistant" if model == "fisheye" else ""
        raise BadInput(
            f"{name}: distortion model {model!r} is not supported; rectify the images first "
            f"(supported: {', '.join(_COEFFICIENTS)}{hint})"
        )
    allowed = _COEFFICIENTS[model]
    if coefficients.size not in allowed:
        if coefficients.size not in _PADDED or coefficients[max(allowed) :].any():
            counts = " or ".join(map(str, allowed))
            raise BadInput(
                f"{name}: {model} has {counts} distortion coefficients, found {coefficients.size}"
            )
        coefficients = coefficients[: max(allowed)]
    return coefficients, model


def _numbers(values: Any, what: str, name: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=np.float64).ravel().copy()
    except (TypeError, ValueError, OverflowError) as error:
        found = repr(values)[:80]
        raise BadInput(f"{name}: {what} must be a list of numbers, found {found}") from error
    if not np.isfinite(numbers).all():
        raise BadInput(f"{name}: {what} holds numbers that are not finite")
    return numbers
