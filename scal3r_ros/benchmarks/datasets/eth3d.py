"""ETH3D: `courtyard/images/dslr_images_undistorted`, COLMAP text, raw float32 depth called JPG.

Photos without order of time: one chunk tests them, not streaming."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.depth_files import raw_depth
from scal3r_ros.benchmarks.sequence import (
    BenchmarkSequence,
    Picture,
    required,
    usable,
    with_calibration,
)
from scal3r_ros.io.calibration_forms import from_colmap
from scal3r_ros.io.image_files import list_images
from scal3r_ros.io.image_header import shown_size_of_file
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.text_files import read_text

IMAGES, CAMERAS = "images/dslr_images_undistorted", "dslr_calibration_undistorted"
DEPTHS = ("ground_truth_depth/dslr_images_undistorted", "ground_truth_depth/custom_undistorted")
"""Depth of undistorted images; the official one is of the distorted ones and is not taken."""


def find(root: Path) -> list[str]:
    names = sorted(path.parents[1].name for path in root.glob(f"*/{IMAGES}"))
    if not names:
        raise BadInput(f"{root} is no ETH3D: expected courtyard/{IMAGES}")
    return names


def read(root: Path, name: str) -> BenchmarkSequence:
    folder, dropped = root / name, Counter[str]()
    paths = list_images(required(folder / IMAGES, "undistorted photos")).paths
    known = colmap_poses(required(folder / CAMERAS / "images.txt", "COLMAP's images.txt"))
    poses = {n: known[path.name] for n, path in enumerate(paths) if path.name in known}
    dropped["picture without pose"] += len(paths) - len(poses)
    camera = from_colmap(required(folder / CAMERAS / "cameras.txt", "COLMAP's cameras.txt"))
    depths = next((folder / d for d in DEPTHS if (folder / d).is_dir()), None)
    return BenchmarkSequence(
        name,
        tuple(Picture(round(n * 1e9), path) for n, path in enumerate(paths)),
        usable(poses, dropped),
        with_calibration(camera),
        +dropped,
        ("photos in order of their names",),
        None if depths is None else partial(_depth, depths, paths),
        camera.intrinsics,
    )


def colmap_poses(path: Path) -> dict[str, np.ndarray]:
    """T_world_camera (4, 4) by file name; COLMAP's are world to camera, scalar first."""
    poses = {}
    lines = [line for line in read_text(path).splitlines() if not line.startswith("#")]
    for line in lines[::2]:  # every other line lists points
        words = line.split()
        if not words:
            continue
        try:
            qw, qx, qy, qz, *t = (float(word) for word in words[1:8])
            rotation = rigid.rotation_matrix(np.array([qx, qy, qz, qw]))
            poses[Path(words[9]).name] = rigid.inverse(rigid.from_parts(rotation, np.array(t)))
        except (ValueError, IndexError) as error:
            raise BadInput(f"{path}: expected `id qw qx qy qz tx ty tz camera name`") from error
    if not poses:
        raise BadInput(f"{path} holds no image")
    return poses


def _depth(folder: Path, paths: list[Path], place: int) -> np.ndarray:
    size = shown_size_of_file(paths[place])
    if size is None:
        raise BadInput(f"{paths[place]} is no image")
    return raw_depth(folder / paths[place].name, size[1], size[0])


ETH3D = Dataset(
    "eth3d",
    "ETH3D",
    "undistorted photos in order of their names, all of them, pairs by name",
    find,
    read,
    auc=(5, 30),
    cloud={"voxel": 0.02, "tau": 0.25, "icp_reach": 0.1, "max_depth": 1e9, "every": 1},
    options={"gate.max_gap": 0.0},
)
