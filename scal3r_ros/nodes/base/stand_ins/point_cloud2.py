"""Stand-in for sensor_msgs_py.point_cloud2: structured arrays to clouds and back."""

from __future__ import annotations

import array
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

# sensor_msgs/PointField datatypes 1 to 8.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}


def dtype_from_fields(fields: Iterable, point_step: int | None = None) -> np.dtype:
    """Structured type of one point, with the offsets that the fields state."""
    names, offsets = [], []
    formats: list[Any] = []
    for field in fields:
        names.append(field.name)
        formats.append(
            _TYPES[field.datatype] if field.count == 1 else (_TYPES[field.datatype], field.count)
        )
        offsets.append(field.offset)
    layout: Any = {"names": names, "formats": formats, "offsets": offsets}
    if point_step is not None:
        layout["itemsize"] = point_step
    return np.dtype(layout)


def create_cloud(header, fields: Iterable, points: np.ndarray):
    """PointCloud2 of a structured array whose type is that of `fields`."""
    from sensor_msgs.msg import PointCloud2

    fields = list(fields)
    expected = dtype_from_fields(fields)
    if points.dtype != expected:
        raise AssertionError(f"points are {points.dtype}, the fields describe {expected}")
    points = np.ascontiguousarray(np.atleast_2d(points))
    data = array.array("B")
    data.frombytes(points.view(np.uint8).data.cast("B") if points.size else b"")
    return PointCloud2(
        header=header,
        height=points.shape[0],
        width=points.shape[1],
        is_dense=False,
        is_bigendian=sys.byteorder != "little",
        fields=fields,
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * points.shape[1],
        data=data,
    )


def read_points(cloud, field_names: Iterable[str] | None = None, skip_nans: bool = False):
    """Structured array (N,) of the points of a cloud, in this machine's byte order."""
    dtype = dtype_from_fields(cloud.fields, cloud.point_step)
    count = cloud.width * cloud.height
    points = np.ndarray((count,), dtype, buffer=cloud.data) if count else np.zeros(0, dtype)
    if cloud.is_bigendian != (sys.byteorder == "big"):
        points = points.byteswap().view(dtype)
    if field_names is not None:
        points = points[list(field_names)]
    if skip_nans:
        valid = np.ones(count, bool)
        for name in points.dtype.names:
            valid &= ~np.isnan(points[name].reshape(count, -1)).any(axis=1)
        points = points[valid]
    return points
