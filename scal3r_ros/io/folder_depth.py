"""Depth images beside the colour images of a folder, in a unit that is known."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from scal3r_ros.io.depth_image import checked_metres
from scal3r_ros.io.folder import read_file
from scal3r_ros.io.layouts.listing import DepthFiles
from scal3r_ros.io.measurements import Measurement
from scal3r_ros.io.source import BadInput

UNITS = {"mm": 1000.0, "m": 1.0, "tum": 5000.0}
"""Counts per metre by the name of a unit; the TUM RGB-D benchmark has 5000."""
_NEAREST = 0.4
"""Metres nearer than which depth cameras see nothing."""
_NONE = 65535
"""What 7-Scenes writes where nothing was measured."""
_JUDGED = 3
"""Depth images that tell the unit."""


class FolderDepth:
    """Depth images in metres."""

    T_base_camera: np.ndarray | None = None

    def __init__(self, files: DepthFiles, unit: str = "") -> None:
        """`unit`: one of `UNITS`, or how much one metre counts; empty if layout or images tell."""
        self._images = files.images
        self._per_metre = _per_metre(unit) if unit else files.per_metre or _certain(files)
        self.description = (
            f"{len(self._images)} depth images of {files.name}, {self._per_metre:g} per metre"
        )

    def __iter__(self) -> Iterator[Measurement]:
        for stamp_ns, path in self._images:
            read = partial(read_depth, path, self._per_metre)
            yield Measurement(stamp_ns, "depth", read)


def read_depth(path: Path, per_metre: float) -> np.ndarray:
    """(H, W) float32 metres, 0 where unknown; raises `BadInput`."""
    return checked_metres(_raw(path).astype(np.float32) / np.float32(per_metre), str(path))


def _raw(path: Path) -> np.ndarray:
    data = np.frombuffer(read_file(path), np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    except cv2.error as error:
        raise BadInput(f"{path} cannot be decoded: {error.err}") from error
    if image is None or image.ndim != 2 or image.dtype not in (np.uint16, np.float32):
        raise BadInput(f"{path} is no readable depth image of 16 bits or of floats")
    return np.where(image == _NONE, 0, image) if image.dtype == np.uint16 else image


def _per_metre(unit: str) -> float:
    try:
        counts = UNITS[unit] if unit in UNITS else float(unit)
    except ValueError:
        counts = 0.0
    if not 0.001 <= counts <= 1e6:
        raise BadInput(
            f"--depth-unit must be {', '.join(UNITS)} or a number per metre, found {unit!r}"
        )
    return counts


def _certain(files: DepthFiles) -> float:
    """Counts per metre where the images leave no doubt; raises `BadInput` where they do.

    Floats are metres. TUM's are whole millimetres times five, so that nearly all can be divided by
    five; a fifth of others can. Where everything is nearer than 0.4 m if 5000 were a metre, less
    than depth cameras see, they are millimetres.
    """
    step = max(1, len(files.images) // _JUDGED)
    samples = [_raw(path) for _, path in files.images[::step][:_JUDGED] if path.is_file()]
    if samples and all(sample.dtype == np.float32 for sample in samples):
        return UNITS["m"]
    known = [values for sample in samples if len(values := sample[sample > 0])]
    if known and min(float((values % 5 == 0).mean()) for values in known) > 0.9:
        return UNITS["tum"]
    if known and max(float(np.percentile(values, 99)) for values in known) < _NEAREST * 5000:
        return UNITS["mm"]
    raise BadInput(
        f"{files.name} does not tell the unit of its depth images; say --depth-unit mm (Kinect, "
        f"RealSense, 7-Scenes, ScanNet) or --depth-unit tum (5000 per metre)"
    )
