"""All formats in one table, and writing a map in some of them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scal3r_ros.io.exports.map_view import MapView


@dataclass(frozen=True)
class Format:
    """A way to write a map."""

    files: str
    """What it writes into the folder."""
    holds: str
    module: str
    """Module in this folder that has `function`."""
    function: str = "write"
    package: str = ""
    """Optional Python package that it needs."""


FORMATS = {
    "tum": Format("trajectory_tum.txt", "poses, TUM", "trajectories", "write_tum"),
    "kitti": Format(
        "trajectory_kitti.txt, times.txt",
        "poses, KITTI odometry, relative to the first camera",
        "trajectories",
        "write_kitti",
    ),
    "euroc": Format("trajectory_euroc.csv", "poses, EuRoC/ASL", "trajectories", "write_euroc"),
    "ply": Format("map.ply", "points, colour, confidence", "ply"),
    "pcd": Format("map.pcd", "points, colour, confidence as intensity; binary", "pcd"),
    "las": Format("map.las", "points, colour, confidence as intensity; LAS 1.2", "las"),
    "laz": Format("map.laz", "the same, compressed", "las", "write_laz", "laspy, lazrs"),
    "colmap": Format("colmap/", "images, cameras, points; text model", "colmap"),
    "colmap-binary": Format("colmap/", "the same; binary model", "colmap", "write_binary"),
    "nerfstudio": Format("nerfstudio/", "transforms.json, images, points", "nerfstudio"),
    "octomap": Format("map.bt", "occupied and free space, two states a cell", "octomap"),
    "octomap-full": Format("map.ot", "the same with log-odds", "octomap", "write_full"),
    "grid": Format("grid.pgm, grid.yaml", "floor plan for map_server", "grid"),
    "obj": Format(
        "mesh.obj",
        "triangles with colour, by Poisson reconstruction",
        "mesh",
        "write_obj",
        "open3d",
    ),
    "glb": Format("mesh.glb", "the same, binary glTF", "mesh", "write_glb", "open3d"),
    "mcap": Format(
        "recording/", "tf, path, points and images as a rosbag2 in MCAP", "mcap", package="rosbags"
    ),
    "rerun": Format("map.rrd", "the same for the rerun viewer", "rerun", package="rerun-sdk"),
}
"""By the name that a user gives."""


def write(view: MapView, folder: str | Path, names: Sequence[str]) -> list[Path]:
    """Write a map in the named formats into `folder`; returns the files.

    Raises `ValueError` for an unknown name, before anything is written, `ExportNotPossible` and
    `SaveFailed`.
    """
    check_names(names)
    files: list[Path] = []
    for name in dict.fromkeys(names):
        chosen = FORMATS[name]
        module: Any = importlib.import_module(f"{__package__}.{chosen.module}")
        files += getattr(module, chosen.function)(view, Path(folder))
    return files


def check_names(names: Sequence[str]) -> None:
    """Raise `ValueError` if one is no format."""
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"no format {name!r}; choose from {', '.join(FORMATS)}")
