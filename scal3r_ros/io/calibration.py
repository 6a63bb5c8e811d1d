"""A camera's calibration and what it does to images; live and offline.

`camera_info` reads it from messages, `calibration_files` from files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from scal3r_ros.io.source import BadInput
from scal3r_ros.records import Frame


class CalibrationMismatch(BadInput):
    """The calibration belongs to images of another shape."""


@dataclass(frozen=True)
class Calibration:
    """A pinhole camera with lens distortion."""

    width: int
    height: int
    """In pixels; both 0 if not told, then `K` is believed to fit the images."""
    K: np.ndarray
    """(3, 3) float64, in pixels whose first centre is (0, 0), as in ROS and OpenCV."""
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(5))
    model: str = "plumb_bob"
    """ROS name: `plumb_bob`, `rational_polynomial` or `equidistant`."""
    name: str = "camera info"

    @property
    def intrinsics(self) -> np.ndarray:
        """(3, 3) matrix of the rectified image in our convention: first pixel centre (0.5, 0.5)."""
        shifted = self.K.copy()
        shifted[:2, 2] += 0.5
        return shifted

    @property
    def distorted(self) -> bool:
        return bool(np.any(self.distortion))

    def same_as(self, other: Calibration | None) -> bool:
        """Whether both mean the same camera; equal ones should share one object and its tables."""
        if other is None:
            return False
        size = (self.width, self.height) == (other.width, other.height)
        lens = self.model == other.model and np.array_equal(self.distortion, other.distortion)
        return size and lens and np.array_equal(self.K, other.K)

    def for_size(self, width: int, height: int) -> Calibration:
        """The calibration of images of this size: scaled if they are the whole view, reduced.

        Raises `CalibrationMismatch` if the images show another part of the view.
        """
        if (width, height) == (self.width, self.height):
            return self
        fitted = self.__dict__.setdefault("fitted", {})
        if (width, height) not in fitted:
            fitted[width, height] = self._fit(width, height)
        return fitted[width, height]

    def _fit(self, width: int, height: int) -> Calibration:
        if not self.width:
            centre = self.K[:2, 2]
            if not (0 < centre[0] < width and 0 < centre[1] < height):
                raise CalibrationMismatch(
                    f"{self.name} does not tell its image size, and its principal point "
                    f"({centre[0]:.6g}, {centre[1]:.6g}) is outside of the images of {width} x "
                    f"{height}"
                )
            return replace(self, width=width, height=height)
        ratio = width / self.width
        if abs(self.height * ratio - height) > 1.0:  # a size is rounded to whole pixels
            raise CalibrationMismatch(
                f"{self.name} is for images of {self.width} x {self.height}, found {width} x "
                f"{height}, another shape; {self._remedy(width, height)}"
            )
        return replace(self, width=width, height=height, K=_scaled(self.K, ratio))

    def _remedy(self, width: int, height: int) -> str:
        if abs(self.height * height / self.width - width) <= 1.0:
            return (
                "these are turned, as by an EXIF orientation, which is applied to images, while a "
                "calibration is of the sensor; remove the orientation tag, or calibrate upright "
                "images"
            )
        return "calibrate this mode of the camera, or state its region of interest"

    def rectify(self, rgb: np.ndarray) -> np.ndarray:
        """Remove the lens distortion; `rgb` (H, W, 3) itself if there is none."""
        fitted = self.for_size(rgb.shape[1], rgb.shape[0])
        return cv2.remap(rgb, *fitted._maps(), cv2.INTER_LINEAR) if fitted.distorted else rgb

    def _maps(self) -> tuple[np.ndarray, np.ndarray]:
        if "maps" not in self.__dict__:
            size, identity = (self.width, self.height), np.eye(3)
            build = (
                cv2.fisheye.initUndistortRectifyMap
                if self.model == "equidistant"
                else cv2.initUndistortRectifyMap
            )
            maps = build(self.K, self.distortion, identity, self.K, size, cv2.CV_32FC1)
            object.__setattr__(self, "maps", maps)
        return self.__dict__["maps"]


def calibrated_frame(
    frame_id: int,
    stamp_ns: int,
    rgb: np.ndarray,
    calibration: Calibration | None,
    rectify: bool = True,
) -> Frame:
    """The frame of an image (H, W, 3); raises `CalibrationMismatch`."""
    if calibration is None:
        return Frame(frame_id, stamp_ns, rgb)
    fitted = calibration.for_size(rgb.shape[1], rgb.shape[0])
    return Frame(frame_id, stamp_ns, fitted.rectify(rgb) if rectify else rgb, fitted.intrinsics)


def _scaled(K: np.ndarray, ratio: float) -> np.ndarray:
    """For an image resized as a whole: corners, which are at -0.5, stay corners."""
    scaled = K.copy()
    scaled[:2] *= ratio
    scaled[:2, 2] += (ratio - 1) / 2
    return scaled
