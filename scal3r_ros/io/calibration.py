"""Camera calibration as ROS writes it: intrinsics, lens distortion, and rectified images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from scal3r_ros.io.source import BadInput

FILE_NAMES = ("camera_info.yaml", "camera_info.yml", "calibration.yaml")


@dataclass(frozen=True)
class Calibration:
    """A pinhole camera with lens distortion."""

    width: int
    height: int
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

    def rectify(self, rgb: np.ndarray) -> np.ndarray:
        """Remove the lens distortion; `rgb` (H, W, 3) itself if there is none."""
        if rgb.shape[:2] != (self.height, self.width):
            raise BadInput(
                f"{self.name} is for images of {self.width} x {self.height}, found "
                f"{rgb.shape[1]} x {rgb.shape[0]}"
            )
        if not np.any(self.distortion):
            return rgb
        return cv2.remap(rgb, *self._maps(), cv2.INTER_LINEAR)

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


def make_calibration(
    width: int, height: int, k: Any, distortion: Any, model: str, name: str
) -> Calibration | None:
    """Check the fields of a camera info; None for an uncalibrated camera (all of K zero)."""
    K = np.asarray(k, dtype=np.float64).reshape(3, 3)
    if not K.any():
        return None
    if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
        raise BadInput(f"{name}: focal lengths must be positive, found {K[0, 0]} and {K[1, 1]}")
    if model not in ("plumb_bob", "rational_polynomial", "equidistant", ""):
        raise BadInput(
            f"{name}: distortion model {model!r} is not supported; rectify the images first "
            f"(supported: plumb_bob, rational_polynomial, equidistant)"
        )
    coefficients = np.asarray(distortion, dtype=np.float64).ravel()
    return Calibration(int(width), int(height), K, coefficients, model or "plumb_bob", name)


def load_calibration(path: str | Path) -> Calibration | None:
    """Read a ROS camera calibration file (camera_info.yaml); raises `BadInput`."""
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
        if not isinstance(values, Mapping):
            raise TypeError("no mapping of fields")
        return make_calibration(
            values["image_width"],
            values["image_height"],
            values["camera_matrix"]["data"],
            values.get("distortion_coefficients", {}).get("data", []),
            values.get("distortion_model", "plumb_bob"),
            str(path),
        )
    except BadInput:
        raise
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{path} is no readable camera calibration: {error!r}") from error


def find_calibration(folders: list[Path], explicit: str | Path | None = None) -> Calibration | None:
    """The explicit file, or the first camera_info.yaml in `folders`; None if there is none."""
    if explicit:
        return load_calibration(explicit)
    for folder in folders:
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return load_calibration(folder / name)
    return None
