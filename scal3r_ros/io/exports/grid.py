"""The floor plan as an image and a YAML file, as nav2_map_server and map_server load them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scal3r_ros.files import write_bytes, write_text
from scal3r_ros.io.exports.map_view import ExportNotPossible, MapView
from scal3r_ros.mapping.occupancy import UNKNOWN, OccupancyGrid

_OCCUPIED, _FREE = 65, 25
"""Percent from which a cell counts as occupied, and up to which as free."""
_BLACK, _GREY, _WHITE = 0, 205, 254
"""Occupied, unknown, free, as map_saver writes them."""


def write(view: MapView, folder: Path) -> list[Path]:
    """`grid.pgm` and `grid.yaml`."""
    return write_grid(view.grid(), folder)


def write_grid(grid: OccupancyGrid, folder: Path) -> list[Path]:
    """An image whose first row is the farthest along y; raises `ExportNotPossible` if nothing is
    known."""
    if not (grid.cells != UNKNOWN).any():
        raise ExportNotPossible("the grid is empty: no frame saw the floor it stood on")
    pixels = np.full(grid.cells.shape, _GREY, np.uint8)
    pixels[grid.cells >= _OCCUPIED] = _BLACK
    pixels[(grid.cells >= 0) & (grid.cells <= _FREE)] = _WHITE
    files = [folder / "grid.pgm", folder / "grid.yaml"]
    width, height = len(pixels[0]), len(pixels)
    head = f"P5\n# scal3r_ros, {grid.resolution:g} m a pixel\n{width} {height}\n255\n"
    write_bytes(files[0], head.encode("ascii") + pixels[::-1].tobytes())
    x, y = float(grid.origin[0]), float(grid.origin[1])
    facts = [
        f"image: {files[0].name}",
        "mode: trinary",
        f"resolution: {grid.resolution:g}",
        f"origin: [{x:.6f}, {y:.6f}, 0.0]",
        "negate: 0",
        f"occupied_thresh: {_OCCUPIED / 100:g}",
        f"free_thresh: {_FREE / 100:g}",
    ]
    write_text(files[1], "\n".join(facts) + "\n")
    return files
