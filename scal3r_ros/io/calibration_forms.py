"""Calibrations as other tools write them, to ours: OpenCV, ORB-SLAM, Kalibr, EuRoC, COLMAP."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scal3r_ros.files import BadArchive, open_regular
from scal3r_ros.io.calibration import Calibration
from scal3r_ros.io.camera_info import check_pinhole, lens, matrix_3x3
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.text_files import read_text

_MATRIX = ("camera_matrix", "cameraMatrix", "CameraMatrix", "Camera_Matrix", "K", "k", "M1")
_LENS = ("distortion_coefficients", "distCoeffs", "dist_coeffs", "distortion_coeffs",
         "Distortion_Coefficients", "D", "d", "D1")  # fmt: skip
_WIDTH = ("image_width", "width", "image_Width", "Camera.width", "Camera.w")
_HEIGHT = ("image_height", "height", "image_Height", "Camera.height", "Camera.h")
_COLMAP_MODELS = (("SIMPLE_PINHOLE", 3), ("PINHOLE", 4), ("SIMPLE_RADIAL", 4), ("RADIAL", 5),
                  ("OPENCV", 8), ("OPENCV_FISHEYE", 8))  # fmt: skip
"""Names and counts of numbers by the model's id."""
_LARGEST = 1_000_000
_MODELS = {
    "radtan": "plumb_bob", "radial-tangential": "plumb_bob", "plumb bob": "plumb_bob",
    "equi": "equidistant", "KannalaBrandt8": "equidistant",
}  # fmt: skip
"""Names that other tools give to the models of ROS."""


def from_fields(values: Mapping, name: str) -> Calibration | None:
    """Calibration of the fields of a YAML file; None if it is one of an uncalibrated camera.

    Raises `BadInput` if no known form fits.
    """
    for key in ("cam0", "camera", "Camera"):  # Kalibr's chain of cameras, and wrappers
        if isinstance(values.get(key), Mapping):
            values = values[key]
            break
    if isinstance(values.get("intrinsics"), Sequence):
        return _from_kalibr(values, name)
    if (prefix := _orb_prefix(values)) is not None:
        return _from_orb_slam(values, prefix, name)
    found = _first(values, _MATRIX)
    if found is None:
        raise BadInput(f"{name} has no camera_matrix; a file of camera_calibration has it")
    K = matrix_3x3(_data(found), name)
    if K[0, 0] == 0:
        return None
    check_pinhole(K, name)
    model = str(values.get("distortion_model", "plumb_bob"))
    numbers = _data(_first(values, _LENS), default=[])
    distortion, model = lens(numbers, _MODELS.get(model, model), name)
    size = tuple(_pixels(values, keys, name) for keys in (_WIDTH, _HEIGHT))
    return Calibration(size[0], size[1], K, distortion, model, name)


def from_numbers(
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    name: str,
    size: tuple[int, int] = (0, 0),
    coefficients: Any = (),
    model: str = "plumb_bob",
) -> Calibration:
    """Calibration of a pinhole in pixels whose first centre is (0, 0); raises `BadInput`."""
    K = matrix_3x3([fx, 0, cx, 0, fy, cy, 0, 0, 1], name)
    check_pinhole(K, name)
    distortion, model = lens(coefficients, _MODELS.get(model, model), name)
    if min(size) < 0 or max(size) > _LARGEST:
        raise BadInput(f"{name}: an image of {size[0]} x {size[1]} pixels is none")
    return Calibration(size[0], size[1], K, distortion, model, name)


def from_colmap(path: Path) -> Calibration:
    """The camera of COLMAP's `cameras.txt` or `cameras.bin`; raises `BadInput` if there are several
    that differ.

    Its first pixel centre is (0.5, 0.5).
    """
    cameras = _colmap_binary(path) if path.suffix == ".bin" else _colmap_text(path)
    if len(set(cameras)) != 1:
        raise BadInput(f"{path} has {len(cameras)} cameras; expected one, give --camera-info")
    try:
        model, width, height = cameras[0][0], int(cameras[0][1]), int(cameras[0][2])
        numbers = [float(word) for word in cameras[0][3:]]
        one_focal = model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
        focal, rest = (numbers[:1] * 2, numbers[1:]) if one_focal else (numbers[:2], numbers[2:])
        (cx, cy), rest = rest[:2], rest[2:]
    except (IndexError, ValueError) as error:
        raise BadInput(f"{path}: expected `ID MODEL WIDTH HEIGHT PARAMETERS`") from error
    counts = {"SIMPLE_PINHOLE": 0, "PINHOLE": 0, "SIMPLE_RADIAL": 1, "RADIAL": 2, "OPENCV": 4,
              "OPENCV_FISHEYE": 4}  # fmt: skip
    if counts.get(model) != len(rest):
        raise BadInput(
            f"{path}: camera model {model} with {len(rest)} coefficients is not read; expected one "
            f"of {', '.join(counts)}, so undistort the images with COLMAP"
        )
    coefficients = [*rest, *[0.0] * (4 - len(rest))]
    kind = "equidistant" if model == "OPENCV_FISHEYE" else "plumb_bob"
    return from_numbers(
        focal[0], focal[1], cx - 0.5, cy - 0.5, str(path), (width, height), coefficients, kind
    )


def _colmap_text(path: Path) -> list[tuple[str, ...]]:
    """Model, size and numbers of each camera, as text."""
    lines = [x.split() for x in read_text(path).splitlines() if x.strip() and x[0] != "#"]
    return [tuple(words[1:]) for words in lines]


def _colmap_binary(path: Path) -> list[tuple[str, ...]]:
    """The same of the binary form: a count, then id, model, size and numbers of each."""
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST)
        cameras, at = [], 8
        for _ in range(min(struct.unpack_from("<Q", data)[0], len(data))):
            _, model, width, height = struct.unpack_from("<iiQQ", data, at)
            name, count = _COLMAP_MODELS[model]
            numbers = struct.unpack_from(f"<{count}d", data, at + 24)
            cameras.append((name, str(width), str(height), *map(repr, numbers)))
            at += 24 + 8 * count
    except (OSError, BadArchive, struct.error) as error:
        raise BadInput(f"{path} is no readable file of COLMAP's cameras: {error}") from error
    except IndexError as error:
        known = ", ".join(name for name, _ in _COLMAP_MODELS)
        raise BadInput(f"{path}: its camera model is not read; expected one of {known}") from error
    return cameras


def _from_kalibr(values: Mapping, name: str) -> Calibration:
    camera = values.get("camera_model", "pinhole")
    if camera != "pinhole":
        raise BadInput(f"{name}: camera model {camera!r} is not supported; calibrate as pinhole")
    numbers, size = values["intrinsics"], values.get("resolution", (0, 0))
    if len(numbers) != 4 or not isinstance(size, Sequence) or len(size) != 2:
        raise BadInput(f"{name}: expected intrinsics fu, fv, cu, cv and a resolution of two")
    width, height = (_whole(value, "resolution", name) for value in size)
    model = str(values.get("distortion_model", "none"))
    fx, fy, cx, cy = numbers
    return from_numbers(fx, fy, cx, cy, name, (width, height), _first(values, _LENS) or [], model)


def _orb_prefix(values: Mapping) -> str | None:
    return next((p for p in ("Camera.", "Camera1.") if f"{p}fx" in values), None)


def _from_orb_slam(values: Mapping, prefix: str, name: str) -> Calibration:
    fx, fy, cx, cy = (values.get(f"{prefix}{key}") for key in ("fx", "fy", "cx", "cy"))
    fisheye = values.get("Camera.type") == "KannalaBrandt8"
    keys = ("k1", "k2", "k3", "k4") if fisheye else ("k1", "k2", "p1", "p2", "k3")
    coefficients = [values.get(f"{prefix}{key}", 0.0) for key in keys]
    size = tuple(_pixels(values, k, name) if _first(values, k) else 0 for k in (_WIDTH, _HEIGHT))
    model = "equidistant" if fisheye else "plumb_bob"
    return from_numbers(fx, fy, cx, cy, name, (size[0], size[1]), coefficients, model)  # type: ignore[arg-type]  # checked there


def _first(values: Mapping, keys: Sequence[str]) -> Any:
    return next((values[key] for key in keys if values.get(key) is not None), None)


def _data(found: Any, default: Any = None) -> Any:
    """The numbers of a matrix, written as `{rows, cols, data}` or as (nested) lists."""
    if isinstance(found, Mapping):
        found = found.get("data")
    if found is None:
        return default
    if not isinstance(found, Sequence) or isinstance(found, str):
        return found
    rows = [v if isinstance(v, list) else [v] for v in found]
    return [number for row in rows for number in row]


def _pixels(values: Mapping, keys: Sequence[str], name: str) -> int:
    return _whole(_first(values, keys), keys[0], name, least=1)


def _whole(found: Any, key: str, name: str, least: int = 0) -> int:
    if isinstance(found, str) and re.fullmatch(r"\d{1,7}", found):
        found = int(found)
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if not isinstance(found, int) or isinstance(found, bool) or not least <= found < _LARGEST:
        raise BadInput(f"{name}: {key} must be a number of pixels, found {str(found)[:60]!r}")
    return found
