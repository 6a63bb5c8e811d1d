"""The points as LAS 1.2, point format 2 (ASPRS LAS specification 1.2), or compressed as LAZ."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np

from scal3r_ros.files import write_bytes
from scal3r_ros.io.exports.map_view import MapView, library, require_points

_HEADER_SIZE = 227
_POINT = np.dtype(
    [
        ("x", "<i4"), ("y", "<i4"), ("z", "<i4"), ("intensity", "<u2"), ("returns", "u1"),
        ("class", "u1"), ("angle", "i1"), ("user", "u1"), ("source", "<u2"),
        ("red", "<u2"), ("green", "<u2"), ("blue", "<u2"),
    ]
)  # fmt: skip
_ONE_RETURN = 0b001001
"""Return 1 of 1."""


def write(view: MapView, folder: Path) -> list[Path]:
    """`map.las`; confidence as intensity, relative to the largest."""
    path = folder / "map.las"
    write_bytes(path, las_bytes(view))
    return [path]


def write_laz(view: MapView, folder: Path) -> list[Path]:
    """`map.laz`, by laspy and lazrs."""
    laspy = library("laspy", "las")
    library("lazrs", "las")
    data = laspy.read(io.BytesIO(las_bytes(view)))
    packed = io.BytesIO()
    data.write(packed, do_compress=True)
    path = folder / "map.laz"
    write_bytes(path, packed.getvalue())
    return [path]


def las_bytes(view: MapView) -> bytes:
    """The file; coordinates are whole multiples of a power of ten that fits the map's extent."""
    require_points(view)
    cloud = view.cloud
    points = cloud.points.astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    offset = np.floor(low)
    step = max(1e-6, 10.0 ** np.ceil(np.log10(max(float((high - offset).max()), 1e-9) / 1e9)))
    whole = np.rint((points - offset) / step).astype(np.int32)
    rows = np.zeros(len(points), _POINT)
    for axis, name in enumerate("xyz"):
        rows[name] = whole[:, axis]
    rows["returns"] = _ONE_RETURN
    rows["intensity"] = 65535.0 * cloud.confidence / max(float(cloud.confidence.max()), 1e-9)
    for channel, name in enumerate(("red", "green", "blue")):
        rows[name] = cloud.colors[:, channel].astype(np.uint16) * 257
    reached = np.stack([whole.max(axis=0), whole.min(axis=0)], axis=1) * step + offset[:, None]
    return _header(len(rows), step, offset, reached) + rows.tobytes()


def _header(count: int, step: float, offset: np.ndarray, reached: np.ndarray) -> bytes:
    """Public header block; `reached` (3, 2) holds the largest and smallest coordinate an axis."""
    head = struct.pack("<4sHH16sBB", b"LASF", 0, 0, bytes(16), 1, 2)
    head += struct.pack("<32s32sHH", b"scal3r_ros", b"scal3r_ros", 0, 0)
    head += struct.pack("<HIIBHI", _HEADER_SIZE, _HEADER_SIZE, 0, 2, _POINT.itemsize, count)
    head += struct.pack("<5I", count, 0, 0, 0, 0)
    return head + struct.pack("<12d", *[step] * 3, *offset, *reached.ravel())
