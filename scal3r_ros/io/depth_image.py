"""Depth images as cameras send them, in metres: the one decoder, live and offline."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from scal3r_ros.io.source import BadInput

METRES = {"16UC1": 1e-3, "mono16": 1e-3, "32FC1": 1.0}
"""By encoding: 16-bit depth is in millimetres, float depth in metres (REP 118)."""
COMPARED_COLUMNS = 96
"""A median over this many columns is as good as one over all."""


FARTHEST = 200.0
"""Metres beyond which no depth camera measures: a median there is in another unit."""


def checked_metres(depth: np.ndarray, name: str) -> np.ndarray:
    """`depth` (H, W) itself; raises `BadInput` if it can be no metres."""
    known = depth[::7, ::7]
    known = known[np.isfinite(known) & (known > 0)]
    if len(known) and (middle := float(np.median(known))) > FARTHEST:
        raise BadInput(
            f"{name}: the median depth is {middle:.6g} m, which no depth camera measures; is it "
            f"in millimetres? Floats must be metres (REP 118)"
        )
    return depth


def thinned(depth: np.ndarray) -> np.ndarray:
    """Every n-th row and column, for keeping many: a copy, at most `COMPARED_COLUMNS` wide."""
    step = -(-depth.shape[1] // COMPARED_COLUMNS)
    return np.ascontiguousarray(depth[step // 2 :: step, step // 2 :: step])


def depth_in_metres(message: Any, name: str) -> np.ndarray:
    """(H, W) float32 of a sensor_msgs Image, or of a CompressedImage with a PNG inside; 0 or not
    finite where unknown. Raises `BadInput`, which starts with `name`."""
    if not hasattr(message, "encoding"):
        data = np.frombuffer(bytes(message.data), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
        if image is None or image.ndim != 2 or image.dtype != np.uint16:
            raise BadInput(f"{name}: expected 16-bit depth in PNG, found {message.format!r}")
        return checked_metres(image.astype(np.float32) * np.float32(1e-3), name)
    if message.encoding not in METRES:
        known = ", ".join(METRES)
        raise BadInput(f"{name}: depth encoding {message.encoding!r} is not one of {known}")
    dtype = np.dtype(np.float32 if message.encoding == "32FC1" else np.uint16)
    dtype = dtype.newbyteorder(">" if message.is_bigendian else "<")
    rows = np.frombuffer(bytes(message.data), np.uint8)
    step, used = message.step, message.width * dtype.itemsize
    if step < used or len(rows) < step * message.height:
        raise BadInput(f"{name}: {len(rows)} bytes are too few for {message.height} rows of {step}")
    rows = rows[: step * message.height].reshape(message.height, step)[:, :used]
    values = np.ascontiguousarray(rows).view(dtype).astype(np.float32)
    return checked_metres(values * np.float32(METRES[message.encoding]), name)
