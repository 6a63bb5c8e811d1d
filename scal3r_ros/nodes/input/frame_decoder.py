"""Queued camera messages to frames: decoded, undistorted, with the intrinsics of our pixel rule."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo

from scal3r_ros.io.calibration import Calibration
from scal3r_ros.nodes.input.frame_queue import Ticket
from scal3r_ros.nodes.input.image_conversions import camera_info_to_calibration, image_to_rgb
from scal3r_ros.records import Frame


def calibration_from_message(message: CameraInfo) -> Calibration | None:
    """Calibration of the arriving images; None if the message says "uncalibrated" (REP 104).

    Raises `ValueError` for values that cannot be a calibration.
    """
    if len(message.k) == 9 and message.k[0] == 0:
        return None
    found = camera_info_to_calibration(message)
    return Calibration(found.width, found.height, found.K, found.distortion, found.model)


def decode(ticket: Ticket, frame_id: int, rectify: bool) -> Frame:
    """The frame of a queued message; `ValueError` if the message is malformed.

    A calibration for another image size is not used.
    """
    rgb = np.ascontiguousarray(image_to_rgb(ticket.message))
    calibration: Calibration | None = ticket.calibration
    if calibration is None or rgb.shape[:2] != (calibration.height, calibration.width):
        return Frame(frame_id, ticket.stamp_ns, rgb)
    if rectify:
        rgb = calibration.rectify(rgb)
    return Frame(frame_id, ticket.stamp_ns, rgb, calibration.intrinsics)
