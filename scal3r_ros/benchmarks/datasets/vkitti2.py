"""Virtual KITTI 2: `Scene01/clone/frames/rgb/Camera_0`, `extrinsic.txt` (world to camera)."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from scal3r_ros import rigid
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

VARIANTS = ("clone", "fog", "morning", "overcast", "rain", "sunset")
SKY = 65535
CENTIMETRES = 100.0


def find(root: Path) -> list[str]:
    """`Scene01/clone` first of every scene, then the five other kinds of weather."""
    names = [
        f"{scene.name}/{variant}"
        for variant in VARIANTS
        for scene in _scenes(root)
        if (_kind(root, "rgb", f"{scene.name}/{variant}") is not None)
    ]
    if not names:
        raise BadInput(f"{root} is no Virtual KITTI 2: expected Scene01/clone/frames/rgb/Camera_0")
    return names


def read(root: Path, name: str) -> BenchmarkSequence:
    dropped = Counter[str]()
    images = _kind(root, "rgb", name)
    if images is None:
        raise BadInput(f"{root} has no {name}/frames/rgb/Camera_0")
    paths = sorted((images / "frames/rgb/Camera_0").glob("rgb_*.jpg"))
    text = _kind(root, "textgt", name, "extrinsic.txt")
    if text is None:
        raise BadInput(f"{root} has no {name}/extrinsic.txt: unpack vkitti_2.0.3_textgt.tar.gz")
    rows = table_of_numbers(text / "extrinsic.txt", 18, "frame, camera and 16 numbers", skip=1)
    lens = table_of_numbers(text / "intrinsic.txt", 6, "frame, camera, fx fy cx cy", skip=1)
    T_camera_world = {int(row[0]): row[2:].reshape(4, 4) for row in rows if row[1] == 0}
    numbers = [int(path.stem.split("_")[-1]) for path in paths]
    poses = {
        place: rigid.inverse(T_camera_world[number])
        for place, number in enumerate(numbers)
        if number in T_camera_world
    }
    dropped["picture without pose"] += len(paths) - len(poses)
    camera = pinhole(*lens[lens[:, 1] == 0][0, 2:])
    depth = _kind(root, "depth", name)
    pictures = tuple(Picture(round(n * 1e8), path) for n, path in enumerate(paths))
    return BenchmarkSequence(
        name,
        pictures,
        usable(poses, dropped),
        with_calibration(camera),
        +dropped,
        ("VKITTI2 is among Scal3R's training data: in-domain for its official weights",),
        None if depth is None else partial(_depth, depth / "frames/depth/Camera_0", numbers),
        camera.intrinsics,
    )


def _depth(folder: Path, numbers: list[int], place: int) -> np.ndarray:
    return png_depth(folder / f"depth_{numbers[place]:05d}.png", CENTIMETRES, SKY)


def _scenes(root: Path) -> list[Path]:
    tops = [root, *sorted(root.glob("vkitti_*rgb"))]
    return sorted({p.name: p for top in tops for p in top.glob("Scene*")}.values())


def _kind(root: Path, kind: str, name: str, file: str = "") -> Path | None:
    """Where one kind of file of a variant lies: in the common tree, or in one of its own."""
    wanted = file or f"frames/{kind}/Camera_0"
    required(root, "the root of Virtual KITTI 2")
    tops = [root, *sorted(root.glob(f"vkitti_*{kind}*"))]
    return next((top / name for top in tops if (top / name / wanted).exists()), None)


VKITTI2 = Dataset(
    "vkitti2",
    "Virtual KITTI 2",
    "Camera_0, all frames, stride 1, variant clone first, then the kinds of weather; pairs by "
    "index; cloud: depth of every 5th frame below 80 m, sky left out",
    find,
    read,
    segments="kitti",
    cloud={"voxel": 0.2, "tau": 1.0, "icp_reach": 0.5, "max_depth": 80.0, "every": 5},
)
