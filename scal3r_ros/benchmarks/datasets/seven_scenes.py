"""7-Scenes: `chess/seq-01/frame-000000.{color.png,depth.png,pose.txt}`; depth camera to world."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.depth_files import png_depth
from scal3r_ros.benchmarks.sequence import (
    BenchmarkSequence,
    Picture,
    pinhole,
    required,
    table_of_numbers,
    usable,
    with_calibration,
)
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.text_files import read_text

STRIDE = 5
NONE = 65535
FARTHEST = 10.0


def find(root: Path) -> list[str]:
    """The test split of every scene; all sequences of a scene without one."""
    names: list[str] = []
    for scene in sorted(path for path in root.glob("*") if path.is_dir()):
        there = sorted(path.name for path in scene.glob("seq-*") if path.is_dir())
        split = scene / "TestSplit.txt"
        if split.is_file():
            numbers = [int(n) for n in re.findall(r"sequence\s*(\d+)", read_text(split))]
            there = [f"seq-{n:02d}" for n in numbers if f"seq-{n:02d}" in there]
        names += [f"{scene.name}/{sequence}" for sequence in there]
    if not names:
        raise BadInput(f"{root} is no 7-Scenes: expected chess/seq-01/frame-000000.color.png")
    return names


def read(root: Path, name: str) -> BenchmarkSequence:
    folder, dropped = required(root / name, "a sequence"), Counter[str]()
    paths = sorted(folder.glob("frame-*.color.png"))[::STRIDE]
    if not paths:
        raise BadInput(f"{folder} holds no frame-000000.color.png")
    poses = {}
    for place, path in enumerate(paths):
        file = path.with_name(path.name.replace(".color.png", ".pose.txt"))
        if file.is_file():
            poses[place] = read_pose(file)
        else:
            dropped["picture without pose"] += 1
    moved = paths[0].with_name(paths[0].name.replace("color", "depth.proj")).is_file()
    suffix, focal = ("depth.proj", 525.0) if moved else ("depth", 585.0)
    camera = pinhole(focal, focal, 320.0, 240.0)
    stamps = [round(int(path.name[6:12]) / 30.0 * 1e9) for path in paths]
    return BenchmarkSequence(
        name,
        tuple(Picture(stamp, path) for stamp, path in zip(stamps, paths)),
        usable(poses, dropped),
        with_calibration(camera),
        dropped,
        (f"intrinsics {focal:g} {focal:g} 320 240 with .{suffix}.png",),
        partial(_depth, paths, suffix),
        camera.intrinsics,
    )


def read_pose(path: Path) -> np.ndarray:
    """(4, 4) of a file of four rows, which may hold infinite numbers; raises `BadInput`."""
    numbers = table_of_numbers(path, 4, "a 4x4 matrix")
    if numbers.shape != (4, 4):
        raise BadInput(f"{path}: {len(numbers)} rows, expected a 4x4 matrix")
    return numbers


def _depth(paths: list[Path], suffix: str, place: int) -> np.ndarray:
    path = paths[place]
    depth = png_depth(path.with_name(path.name.replace("color", suffix)), 1000.0, NONE)
    depth[depth > FARTHEST] = np.nan
    return depth


SEVEN_SCENES = Dataset(
    "7scenes",
    "7-Scenes",
    "test split, every 5th frame, poses of the depth camera, pairs by index; depth 1 mm to 10 m",
    find,
    read,
    auc=(5, 30),
    cloud={"voxel": 4.0 / 512, "tau": 0.05, "icp_reach": 0.1, "max_depth": 10.0, "every": 5},
)
