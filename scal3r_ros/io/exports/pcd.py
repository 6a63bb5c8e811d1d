"""The points as a file of the Point Cloud Library, version 0.7, binary."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scal3r_ros.files import write_bytes
from scal3r_ros.io.exports.map_view import MapView

_POINT = np.dtype([(name, "<f4") for name in ("x", "y", "z", "rgb", "intensity")])


def write(view: MapView, folder: Path) -> list[Path]:
    """`map.pcd`: x, y, z, rgb packed into the bits of a float as PCL does, confidence as
    intensity."""
    cloud = view.cloud
    points = np.empty(len(cloud), _POINT)
    for axis, name in enumerate("xyz"):
        points[name] = cloud.points[:, axis]
    red, green, blue = cloud.colors.astype(np.uint32).T
    points["rgb"] = (red << 16 | green << 8 | blue).astype("<u4").view("<f4")
    points["intensity"] = cloud.confidence
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        f"# {view.note}",
        "VERSION 0.7",
        f"FIELDS {' '.join(_POINT.names or ())}",
        "SIZE 4 4 4 4 4",
        "TYPE F F F F F",
        "COUNT 1 1 1 1 1",
        f"WIDTH {len(points)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(points)}",
        "DATA binary",
    ]
    path = folder / "map.pcd"
    write_bytes(path, ("\n".join(header) + "\n").encode("ascii") + points.tobytes())
    return [path]
