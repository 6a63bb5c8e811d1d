"""Calibration from files, found beside images or named by the user; raises `BadInput`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from scal3r_ros.io.calibration import Calibration
from scal3r_ros.io.calibration_forms import from_colmap, from_fields
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.text_files import read_yaml

FILE_NAMES = ("camera_info.yaml", "camera_info.yml", "calibration.yaml", "ost.yaml")
"""Names that are looked for beside images; ost.yaml is what camera_calibration saves."""


def load_calibration(path: str | Path) -> Calibration | None:
    """Read a calibration file of ROS or of another tool; None if it is of an uncalibrated camera.

    Raises `BadInput` for what is no calibration.
    """
    path = Path(path).expanduser()
    if path.name in ("cameras.txt", "cameras.bin"):
        return from_colmap(path)
    values = read_yaml(path)
    if not isinstance(values, Mapping):
        raise BadInput(f"{path} is no camera calibration: it holds no fields, such as image_width")
    return from_fields(values, str(path))


def find_calibration(
    folders: Iterable[Path], explicit: str | Path | None = None
) -> Calibration | None:
    """The explicit file, or the first of `FILE_NAMES` in `folders`; None if there is none."""
    if explicit:
        return load_calibration(explicit)
    for folder in folders:
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return load_calibration(folder / name)
    return None
