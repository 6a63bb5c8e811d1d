"""The camera that structure from motion works with: given, or found from the first good chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from scal3r_ros.reconstruct.interface import ReconstructionFailed

_TYPICAL_FOCAL = 1.2
"""Focal length of an unknown camera, in image widths or heights, whichever is larger."""
_FOCAL_RANGE = (0.35, 5.0)


@dataclass(frozen=True)
class SelfCalibration:
    """Focal length and one radial distortion coefficient, found once and then kept."""

    focal: float
    radial: float
    width: int
    height: int

    @property
    def intrinsics(self) -> np.ndarray:
        """(3, 3) pinhole matrix of the rectified image; first pixel centre (0.5, 0.5)."""
        return np.array(
            [[self.focal, 0, self.width / 2], [0, self.focal, self.height / 2], [0, 0, 1]]
        )

    def rectify(self, rgb: np.ndarray) -> np.ndarray:
        """Remove the distortion of an image (H, W, 3)."""
        K = self.intrinsics
        K[:2, 2] -= 0.5
        return cv2.undistort(rgb, K, np.array([self.radial, 0, 0, 0, 0]))


def pinhole(intrinsics: np.ndarray, width: int, height: int) -> Any:
    """A fixed `pycolmap.Camera` from a pinhole matrix."""
    import pycolmap

    parameters = [intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]]
    camera = pycolmap.Camera(model="PINHOLE", width=width, height=height, params=parameters)
    camera.has_prior_focal_length = True
    return camera


def unknown(width: int, height: int) -> Any:
    """A `pycolmap.Camera` with a typical focal length, to be refined."""
    import pycolmap

    focal = _TYPICAL_FOCAL * max(width, height)
    parameters = [focal, width / 2, height / 2, 0.0]
    return pycolmap.Camera(model="SIMPLE_RADIAL", width=width, height=height, params=parameters)


def from_refined(camera: Any) -> SelfCalibration:
    """Check a refined camera; raises `ReconstructionFailed` if it is not believable."""
    focal, _, _, radial = (float(x) for x in camera.params)
    ratio = focal / max(camera.width, camera.height)
    if not _FOCAL_RANGE[0] <= ratio <= _FOCAL_RANGE[1] or abs(radial) > 0.5:
        raise ReconstructionFailed(
            f"self-calibration found a focal length of {ratio:.2f} image widths and distortion "
            f"{radial:.2f}; give the camera's calibration (camera_info.yaml)"
        )
    return SelfCalibration(focal, radial, camera.width, camera.height)
