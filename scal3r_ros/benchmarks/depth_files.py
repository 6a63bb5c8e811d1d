"""Depth as data sets store it, in metres with NaN for unknown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from scal3r_ros.io.folder import read_file
from scal3r_ros.io.source import BadInput


def png_depth(path: Path, per_metre: float, none: int = 0) -> np.ndarray:
    """(H, W) float32 of a 16-bit image; 0 and `none` are unknown. Raises `BadInput`."""
    raw = cv2.imdecode(np.frombuffer(read_file(path), np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 2 or raw.dtype != np.uint16:
        raise BadInput(f"{path} is no 16-bit depth image")
    depth = raw.astype(np.float32) / np.float32(per_metre)
    depth[(raw == 0) | ((raw == none) if none else False)] = np.nan
    return depth


def raw_depth(path: Path, height: int, width: int) -> np.ndarray:
    """(H, W) of float32 numbers without a header, as ETH3D stores them; infinite is unknown."""
    values = np.frombuffer(read_file(path), np.float32)
    if len(values) != height * width:
        raise BadInput(f"{path}: {len(values)} numbers, expected {width} x {height} of float32")
    depth = values.reshape(height, width).copy()
    depth[~np.isfinite(depth) | (depth <= 0)] = np.nan
    return depth


def nearest_file(files: Sequence[tuple[int, Path]], stamp_ns: int, reach_s: float) -> Path:
    """The file nearest in time; raises `BadInput` if none is near."""
    nearest = min(files, key=lambda item: abs(item[0] - stamp_ns))
    if abs(nearest[0] - stamp_ns) > reach_s * 1e9:
        raise BadInput(f"no depth within {reach_s:g} s of {stamp_ns} ns")
    return nearest[1]
