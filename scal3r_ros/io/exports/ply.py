"""The points as binary PLY."""

from __future__ import annotations

from pathlib import Path

from scal3r_ros.io.exports.map_view import MapView
from scal3r_ros.io.ply import write_cloud


def write(view: MapView, folder: Path) -> list[Path]:
    """`map.ply`: position, colour, confidence."""
    path, cloud = folder / "map.ply", view.cloud
    write_cloud(path, cloud.points, cloud.colors, cloud.confidence, view.note)
    return [path]
