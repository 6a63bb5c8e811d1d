"""Calibration from files, as `camera_calibration` writes them; raises `BadInput`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scal3r_ros.io.calibration import Calibration
from scal3r_ros.io.camera_info import check_pinhole, lens, matrix_3x3
from scal3r_ros.io.source import BadInput

FILE_NAMES = ("camera_info.yaml", "camera_info.yml", "calibration.yaml")


def load_calibration(path: str | Path) -> Calibration | None:
    """Read a ROS camera calibration file (camera_info.yaml); raises `BadInput`."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path} is no readable camera calibration: {error}") from error
    name = str(path)
    if not isinstance(values, Mapping):
        raise BadInput(f"{path} is no camera calibration: it holds no fields, such as image_width")
    K = matrix_3x3(_data(values, "camera_matrix", name), name)
    if K[0, 0] == 0:
        return None
    check_pinhole(K, name)
    coefficients = _data(values, "distortion_coefficients", name, [])
    distortion, model = lens(coefficients, values.get("distortion_model", "plumb_bob"), name)
    width, height = (_pixels(values, key, name) for key in ("image_width", "image_height"))
    return Calibration(width, height, K, distortion, model, name)


def find_calibration(folders: list[Path], explicit: str | Path | None = None) -> Calibration | None:
    """The explicit file, or the first camera_info.yaml in `folders`; None if there is none."""
    if explicit:
        return load_calibration(explicit)
    for folder in folders:
        for name in FILE_NAMES:
            if (folder / name).is_file():
                return load_calibration(folder / name)
    return None


def _data(values: Mapping, key: str, name: str, missing: Any = None) -> Any:
    """The numbers of a matrix, written as `{rows, cols, data}` or as (nested) lists."""
    found = values.get(key, missing)
    if isinstance(found, Mapping):
        found = found.get("data", missing)
    if found is None:
        raise BadInput(f"{name} has no {key}; a file of camera_calibration has it")
    return _flat(found) if isinstance(found, Sequence) and not isinstance(found, str) else found


def _flat(values: Sequence) -> list:
    rows = [v if isinstance(v, list) else [v] for v in values]
    return [number for row in rows for number in row]


def _pixels(values: Mapping, key: str, name: str) -> int:
    found = values.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < 1_000_000:
        raise BadInput(f"{name}: {key} must be a number of pixels, found {found!r}")
    return found
