"""Folders that scanners, renderers and photogrammetry write: nerfstudio, COLMAP, ScanNet, Replica,
Record3D. None tells times except newer Record3D, so stamps are made up unless said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scal3r_ros.io.calibration import Calibration
from scal3r_ros.io.calibration_forms import from_colmap, from_numbers
from scal3r_ros.io.image_files import IMAGE_SUFFIXES, list_images, natural_key
from scal3r_ros.io.layouts.depth import MILLIMETRES, same_names
from scal3r_ros.io.layouts.listing import DepthFiles, Listing, at_rate, first_file, made_up
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.text_files import read_text


def find_nerfstudio(folder: Path, rate: float) -> Listing | None:
    """`transforms.json`: files and one camera; the order is that of the names."""
    path = folder / "transforms.json"
    if not path.is_file():
        return None
    values = read_json(path)
    try:
        frames = [(_existing(folder / _slashes(f["file_path"])), f) for f in values["frames"]]
        frames.sort(key=lambda entry: natural_key(entry[0]))
        files = [path for path, _ in frames]
        depth = [f.get("depth_file_path") for _, f in frames]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path}: expected `frames` with a `file_path` each") from error
    if not any(file.is_file() for file in files):
        raise BadInput(f"{path}: none of the files that it names exists")
    camera = {**_common_camera([frame for _, frame in frames]), **values}
    read = (lambda: _nerfstudio_camera(camera, str(path))) if "fl_x" in camera else None
    images = at_rate(files, rate)
    named = [(ns, _slashes(str(name))) for (ns, _), name in zip(images, depth) if name]
    pairs = tuple((ns, folder / name) for ns, name in named)
    unit = _numbers([values.get("depth_unit_scale_factor", 1 / MILLIMETRES)], 1, path)[0]
    if not 0 < unit <= 1000:
        raise BadInput(f"{path}: depth_unit_scale_factor must be metres per count, found {unit}")
    known = DepthFiles(pairs, path.name, 1 / float(unit)) if pairs else None
    where = f"transforms.json, {made_up(rate)}"
    return Listing(images, where, read, (folder,), known)


def find_colmap(folder: Path, rate: float) -> Listing | None:
    """`images/` beside `cameras.txt` or `.bin`, or with it in `sparse/0`."""
    top = folder.parent if folder.name == "images" else folder
    places = [f"{place}cameras.{kind}" for kind in ("txt", "bin")
              for place in ("", "sparse/0/", "sparse/")]  # fmt: skip
    cameras = first_file([top], places)
    images = list_images(top / "images")
    if cameras is None or not images.paths:
        return None
    where = f"COLMAP layout, {made_up(rate)}"
    return Listing(at_rate(images.paths, rate), where, lambda: from_colmap(cameras), (top,))


def find_scannet(folder: Path, rate: float) -> Listing | None:
    """`color/` and `intrinsic/intrinsic_color.txt` as ScanNet's reader exports them."""
    top = folder.parent if folder.name == "color" else folder
    matrix = top / "intrinsic/intrinsic_color.txt"
    if not matrix.is_file() or not (images := list_images(top / "color")).paths:
        return None

    def read() -> Calibration:
        numbers = _numbers(read_text(matrix).split(), 16, matrix).reshape(4, 4)
        return from_numbers(*_pinhole(numbers), str(matrix))

    found = at_rate(images.paths, rate)
    depth = same_names(found, MILLIMETRES)
    return Listing(found, f"ScanNet layout, {made_up(rate)}", read, depth=depth)


def find_replica(folder: Path, rate: float) -> Listing | None:
    """`results/frame000000.jpg` beside depth, `cam_params.json` of the data set above."""
    top = folder.parent if folder.name == "results" else folder
    results = top / "results"
    paths = [p for p in list_images(results).paths if p.name.startswith("frame")]
    if not paths or not (top / "traj.txt").is_file():
        return None
    path = first_file((top, top.parent), ["cam_params.json"])
    read = None if path is None else (lambda: _replica_camera(path))
    found = at_rate(paths, rate)
    depth = same_names(found, _replica_per_metre(path) if path else 0.0)
    return Listing(found, f"Replica layout, {made_up(rate)}", read, depth=depth)


def find_record3d(folder: Path, rate: float) -> Listing | None:
    """`rgb/0.jpg` and a `metadata` with `K` (by columns), `w`, `h`, perhaps `fps` and times."""
    top = folder.parent if folder.name == "rgb" else folder
    path = first_file([top], ["metadata.json", "metadata"])
    if path is None or not (paths := list_images(top / "rgb").paths):
        return None
    values = read_json(path)
    if not {"K", "w", "h"} <= set(values):
        return None
    fps = values.get("fps", rate)
    rate = float(fps) if isinstance(fps, int | float) and 0.01 < fps < 10_000 else rate
    times = values.get("frameTimestamps")
    images, stamps = at_rate(paths, rate), f"stamps at {rate:g} Hz of metadata"
    if isinstance(times, list) and len(times) == len(paths):
        seconds = _numbers(times, len(times), path)
        images = tuple((round(s * 1e9), p) for s, p in zip(seconds.tolist(), paths))
        stamps = "stamps from metadata"

    def read() -> Calibration:
        K = _numbers(values["K"], 9, path).reshape(3, 3).T
        size = _numbers([values["w"], values["h"]], 2, path).astype(int)
        return from_numbers(*_pinhole(K), str(path), (int(size[0]), int(size[1])))

    return Listing(images, f"Record3D layout, {stamps}", read)


FINDERS: tuple[Callable[[Path, float], Listing | None], ...] = (
    find_nerfstudio, find_record3d, find_replica, find_scannet, find_colmap,
)  # fmt: skip


def read_json(path: Path) -> Mapping[str, Any]:
    """An object; raises `BadInput`."""
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no readable JSON ({error}); repair or remove it") from error
    if not isinstance(values, Mapping):
        raise BadInput(f"{path} holds no object; expected fields such as `frames`")
    return values


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _existing(path: Path) -> Path:
    """Older files name images without their suffix."""
    choices = (path.with_name(path.name + suffix) for suffix in ("", *IMAGE_SUFFIXES))
    return next((choice for choice in choices if choice.is_file()), path)


def _common_camera(frames: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What all frames say of the camera, where each has its own entries."""
    first = frames[0] if frames else {}
    return {key: first[key] for key in first if all(f.get(key) == first[key] for f in frames)}


def _nerfstudio_camera(values: Mapping[str, Any], name: str) -> Calibration:
    width, height = values.get("w", 0), values.get("h", 0)
    fx, cx, cy = (values.get(key) for key in ("fl_x", "cx", "cy"))
    numbers = _numbers([fx, values.get("fl_y", fx), cx, cy], 4, Path(name))
    fisheye = values.get("camera_model") == "OPENCV_FISHEYE"
    keys = ("k1", "k2", "k3", "k4") if fisheye else ("k1", "k2", "p1", "p2", "k3")
    lens = _numbers([values.get(key, 0) for key in keys], len(keys), Path(name))
    model = "equidistant" if fisheye else "plumb_bob"
    size = _numbers([width, height], 2, Path(name)).astype(int)
    return from_numbers(
        *_corner_to_centre(numbers), name, (int(size[0]), int(size[1])), lens, model
    )


def _corner_to_centre(numbers: np.ndarray) -> tuple[float, float, float, float]:
    """COLMAP's first pixel centre is (0.5, 0.5), that of ROS and OpenCV is (0, 0)."""
    fx, fy, cx, cy = numbers.tolist()
    return fx, fy, cx - 0.5, cy - 0.5


def _replica_per_metre(path: Path) -> float:
    """`scale` of the depth images, 6553.5 in the data set."""
    return float(_numbers([_replica_fields(path).get("scale", 0.0)], 1, path)[0])


def _replica_fields(path: Path) -> Mapping[str, Any]:
    camera = read_json(path).get("camera")
    if not isinstance(camera, Mapping):
        raise BadInput(f"{path} has no `camera`")
    return camera


def _replica_camera(path: Path) -> Calibration:
    camera = _replica_fields(path)
    values = [camera.get(key) for key in ("fx", "fy", "cx", "cy", "w", "h")]
    fx, fy, cx, cy, width, height = _numbers(values, 6, path).tolist()
    return from_numbers(fx, fy, cx, cy, str(path), (int(width), int(height)))


def _pinhole(K: np.ndarray) -> tuple[float, float, float, float]:
    return float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])


def _numbers(values: Any, count: int, path: Path) -> np.ndarray:
    try:
        numbers = np.array(values, dtype=np.float64).ravel()
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{path}: expected {count} numbers, found {str(values)[:80]}") from error
    if len(numbers) != count or not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e12:
        raise BadInput(f"{path}: expected {count} finite numbers, found {str(values)[:80]}")
    return numbers
