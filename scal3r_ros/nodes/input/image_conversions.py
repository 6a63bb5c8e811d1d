"""Arrays to camera messages: depth images and the camera they belong to.

The way back, from images and calibrations that cameras send, is that of recordings: `io/`.
"""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from scal3r_ros.nodes.base.conversions import header
from scal3r_ros.nodes.base.ros_compat import CvBridge


def depth_to_image(depth: np.ndarray, frame_id: str, stamp_ns: int) -> Image:
    """Message of an (H, W) float32 depth image, NaN where there is none (REP 118)."""
    return CvBridge().cv2_to_imgmsg(depth.astype(np.float32), "32FC1", header(frame_id, stamp_ns))


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
