"""TUM RGB-D: `rgb.txt`, `depth.txt`, `groundtruth.txt` (camera to world at 100 Hz)."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.depth_files import nearest_file, png_depth
from scal3r_ros.benchmarks.sequence import (
    BenchmarkSequence,
    Picture,
    at_times,
    pinhole,
    required,
    usable,
    with_calibration,
)
from scal3r_ros.io.image_index import read_index
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.tum import read_trajectory

REACH = 0.02
"""Seconds between a picture and its pose, or its depth."""
PER_METRE = 5000.0
CAMERAS = {
    "1": (517.306408, 516.469215, 318.64304, 255.313989, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    "2": (520.90862, 521.007327, 325.141442, 249.701764, 0.2312, -0.7849, -0.0033, -1e-4, 0.9172),
    "3": (535.4, 539.2, 320.1, 247.6),
}
"""fx fy cx cy k1 k2 p1 p2 k3 of the three Kinects."""


def find(root: Path) -> list[str]:
    names = sorted(p.parent.name for p in root.glob("*/groundtruth.txt") if _listed(p.parent))
    if not names:
        raise BadInput(
            f"{root} is no TUM RGB-D: expected rgbd_dataset_freiburg1_desk/ with rgb.txt and "
            f"groundtruth.txt"
        )
    return names


def read(root: Path, name: str) -> BenchmarkSequence:
    folder, dropped = root / name, Counter[str]()
    listed = read_index(required(folder / "rgb.txt", "lines `timestamp file`")).images
    pictures = tuple(Picture(stamp_ns, path) for stamp_ns, path in listed)
    stamps, poses = read_trajectory(required(folder / "groundtruth.txt", "the true trajectory"))
    truth = at_times(pictures, stamps, poses, REACH, dropped)
    kinect = next((n for n in CAMERAS if f"freiburg{n}" in name or f"fr{n}" in name), "")
    camera = pinhole(*CAMERAS[kinect]) if kinect else None
    depth = None
    if (folder / "depth.txt").is_file() and camera is not None:
        maps = read_index(folder / "depth.txt").images
        depth = partial(_depth, [p.stamp_ns for p in pictures], maps)
    note = f"intrinsics of freiburg{kinect}" if kinect else "no intrinsics: name of no Kinect"
    return BenchmarkSequence(
        name,
        pictures,
        usable(truth, dropped),
        with_calibration(camera),
        dropped,
        (note,),
        depth,
        None if camera is None else camera.intrinsics,
    )


def _listed(folder: Path) -> bool:
    return (folder / "rgb.txt").is_file()


def _depth(stamps: list[int], maps: tuple[tuple[int, Path], ...], place: int) -> np.ndarray:
    return png_depth(nearest_file(maps, stamps[place], REACH), PER_METRE)


TUM = Dataset(
    "tum",
    "TUM RGB-D",
    "all frames, stride 1, nearest pose within 0.02 s",
    find,
    read,
    options={"gate.max_gap": 0.0},
)
