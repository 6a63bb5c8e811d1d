"""KITTI odometry: `poses/00.txt` (camera 0 to world), `sequences/00/{image_2,calib.txt}`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.sequence import (
    BenchmarkSequence,
    Picture,
    by_index,
    required,
    table_of_numbers,
    usable,
    with_calibration,
)
from scal3r_ros.io.layouts import kitti
from scal3r_ros.io.source import BadInput

SCORED = tuple(f"{number:02d}" for number in range(11))
"""Sequences with public poses."""


def find(root: Path) -> list[str]:
    top = base(root)
    poses = required(top / "poses", "poses/00.txt ... of data_odometry_poses.zip")
    there = {path.stem for path in poses.glob("*.txt")}
    names = [n for n in SCORED if n in there and (top / "sequences" / n).is_dir()]
    if not names:
        raise BadInput(f"{top} has no sequence 00 to 10 with both poses and images")
    return names


def read(root: Path, name: str) -> BenchmarkSequence:
    top, dropped = base(root), Counter[str]()
    folder = required(top / "sequences" / name / "image_2", "the left colour images").parent
    listing = kitti.find(folder)
    if listing is None or listing.read_calibration is None:
        raise BadInput(f"{folder}: expected times.txt, calib.txt and image_2")
    pictures = tuple(Picture(stamp_ns, path) for stamp_ns, path in listing.images)
    rows = table_of_numbers(top / "poses" / f"{name}.txt", 12, "12 numbers, 3x4 row-major")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    truth = usable(by_index(len(pictures), poses, dropped), dropped)
    return BenchmarkSequence(
        name,
        pictures,
        truth,
        with_calibration(listing.read_calibration()),
        dropped,
        ("image_2 against poses of camera 0, which sits about 6 cm beside it",),
    )


def base(root: Path) -> Path:
    """Where `sequences` is: the root, or `dataset` below it."""
    for top in (root, root / "dataset"):
        if (top / "sequences").is_dir():
            return top
    raise BadInput(f"{root} is no KITTI odometry: expected sequences/00/image_2 and poses/00.txt")


KITTI = Dataset(
    "kitti",
    "KITTI odometry",
    "all frames of image_2, stride 1, sequences 00 to 10, pairs by index",
    find,
    read,
    segments="kitti",
)
