"""VBR (Vision Benchmark in Rome): as `vbr convert kitti` leaves it (truth of the LIDAR), or in the
form of LoGeR (`campus_train0_processed_aligned/rgb`, poses of the camera)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.datasets.seven_scenes import read_pose
from scal3r_ros.benchmarks.sequence import (
    BenchmarkSequence,
    Picture,
    at_times,
    pinhole,
    required,
    table_of_numbers,
    usable,
    with_calibration,
)
from scal3r_ros.io.calibration import Calibration
from scal3r_ros.io.image_files import list_images
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.stamps import parse_number, to_nanoseconds
from scal3r_ros.io.text_files import read_text, read_yaml
from scal3r_ros.io.tum import read_trajectory

PROCESSED = "_processed_aligned"
REACH = 0.05
"""Seconds between a picture and the LIDAR pose that is taken for it."""


def find(root: Path) -> list[str]:
    names = [p.parent.name.removesuffix(PROCESSED) for p in root.glob(f"*{PROCESSED}/rgb")]
    names += [p.parent.name for p in (*root.glob("*/camera_left"), *root.glob("*/*/camera_left"))]
    if not names:
        raise BadInput(
            f"{root} is no VBR: expected campus/campus_train0/camera_left (after `vbr convert "
            f"kitti`) or campus_train0{PROCESSED}/rgb"
        )
    return sorted(set(names))


def read(root: Path, name: str) -> BenchmarkSequence:
    if (root / f"{name}{PROCESSED}").is_dir():
        return _processed(root / f"{name}{PROCESSED}", name)
    below = next(
        iter([*root.glob(f"{name}/camera_left"), *root.glob(f"*/{name}/camera_left")]), None
    )
    if below is None:
        raise BadInput(f"{root} has no {name}/camera_left")
    return _converted(below.parent, name)


def _converted(folder: Path, name: str) -> BenchmarkSequence:
    dropped = Counter[str]()
    camera, T_lidar_camera = _calibration(folder / "vbr_calib.yaml")
    times = folder / "camera_left/timestamps.txt"
    words = read_text(required(times, "one time a line")).split()
    try:
        stamps = to_nanoseconds([parse_number(word) for word in words], str(times))[0]
    except ValueError as error:
        raise BadInput(f"{times}: expected one time a line: {error}") from error
    paths = list_images(folder / "camera_left/data").paths
    both = min(len(paths), len(stamps))
    dropped["picture without time"] += len(paths) - both
    dropped["time without picture"] += len(stamps) - both
    pictures = tuple(Picture(stamp, path) for stamp, path in zip(stamps, paths))
    true_ns, T_world_lidar = read_trajectory(required(folder / f"{name}_gt.txt", "the truth"))
    truth = at_times(pictures, true_ns, T_world_lidar @ T_lidar_camera, REACH, dropped)
    note = "truth moved from the LIDAR to the left camera; distortion removed"
    return BenchmarkSequence(
        name, pictures, usable(truth, dropped), with_calibration(camera), +dropped, (note,)
    )


def _processed(folder: Path, name: str) -> BenchmarkSequence:
    dropped = Counter[str]()
    paths = list_images(folder / "rgb").paths
    poses = {}
    for place, path in enumerate(paths):
        file = folder / "camera_pose" / f"{path.stem}.txt"
        if file.is_file():
            poses[place] = read_pose(file)
        else:
            dropped["picture without pose"] += 1
    K = table_of_numbers(folder / "intrinsics.txt", 3, "a 3x3 matrix")
    camera = pinhole(K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    pictures = tuple(Picture(round(n * 1e8), path) for n, path in enumerate(paths))
    note = "LoGeR's processed form, images not undistorted, poses of the camera"
    return BenchmarkSequence(
        name, pictures, usable(poses, dropped), with_calibration(camera), dropped, (note,)
    )


def _calibration(path: Path) -> tuple[Calibration, np.ndarray]:
    """The left camera and T_lidar_camera."""
    values = read_yaml(required(path, "the calibration of the sensors"))
    try:
        left = values["cam_l"]
        fx, fy, cx, cy = (float(x) for x in left["intrinsics"])
        lens = [float(x) for x in left.get("distortion_coeffs", [0.0] * 4)]
        frames = [np.array(values[n]["T_b"], float).reshape(4, 4) for n in ("lidar", "cam_l")]
    except (LookupError, TypeError, ValueError) as error:
        raise BadInput(
            f"{path}: expected cam_l with intrinsics, distortion_coeffs and T_b, and lidar with T_b"
        ) from error
    return pinhole(fx, fy, cx, cy, *lens), rigid.inverse(frames[0]) @ frames[1]


VBR = Dataset(
    "vbr",
    "VBR",
    "left camera, all frames, stride 1, nearest pose within 0.05 s",
    find,
    read,
    segments="vbr",
)
