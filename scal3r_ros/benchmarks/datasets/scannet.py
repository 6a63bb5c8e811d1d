"""ScanNet as its reader exports it: `color/0.jpg`, `depth/0.png`, `pose/0.txt`, `intrinsic/`."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.datasets.seven_scenes import read_pose
from scal3r_ros.benchmarks.depth_files import png_depth
from scal3r_ros.benchmarks.sequence import (
    BenchmarkSequence,
    Picture,
    required,
    table_of_numbers,
    usable,
    with_calibration,
)
from scal3r_ros.io.image_files import natural_key
from scal3r_ros.io.layouts.exports import find_scannet
from scal3r_ros.io.source import BadInput

STRIDE, LONGEST = 3, 1000


def find(root: Path) -> list[str]:
    names = sorted(path.parent.name for path in root.glob("scene*/color"))
    if not names:
        raise BadInput(f"{root} is no ScanNet: expected scene0707_00/color/0.jpg")
    return names


def read(root: Path, name: str) -> BenchmarkSequence:
    folder, dropped = root / name, Counter[str]()
    images = required(folder / "color", "colour images").glob("*.jpg")
    paths = sorted(images, key=natural_key)[::STRIDE][:LONGEST]
    listing = find_scannet(folder, 30.0)
    if listing is None or listing.read_calibration is None or not paths:
        raise BadInput(f"{folder}: expected color/0.jpg and intrinsic/intrinsic_color.txt")
    poses = {}
    for place, path in enumerate(paths):
        file = folder / "pose" / f"{path.stem}.txt"
        if file.is_file():
            poses[place] = read_pose(file)
        else:
            dropped["picture without pose"] += 1
    matrix = table_of_numbers(folder / "intrinsic/intrinsic_depth.txt", 4, "a 4x4 matrix")
    K = matrix[:3, :3].copy()
    K[:2, 2] += 0.5
    stamps = [round(int(path.stem) / 30.0 * 1e9) for path in paths]
    return BenchmarkSequence(
        name,
        tuple(Picture(stamp, path) for stamp, path in zip(stamps, paths)),
        usable(poses, dropped),
        with_calibration(listing.read_calibration()),
        dropped,
        (),
        partial(_depth, folder, paths),
        K,
    )


def _depth(folder: Path, paths: list[Path], place: int) -> np.ndarray:
    return png_depth(folder / "depth" / f"{paths[place].stem}.png", 1000.0)


SCANNET = Dataset(
    "scannet",
    "ScanNet",
    "every 3rd frame from 0, at most 1000, poses with infinite numbers left out",
    find,
    read,
)
