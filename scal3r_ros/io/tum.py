"""Trajectories in the TUM format: `seconds tx ty tz qx qy qz qw`, camera to map."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from scal3r_ros.files import write_text
from scal3r_ros.io.source import BadInput
from scal3r_ros.records import TrajectoryPose


def write_trajectory(path: str | Path, poses: Sequence[TrajectoryPose]) -> None:
    """Write poses; stamps keep their nanoseconds, numbers enough digits to be read back exactly
    as float32."""
    lines = ["# timestamp tx ty tz qx qy qz qw   (camera to map)"]
    for pose in poses:
        seconds, nanoseconds = divmod(pose.stamp_ns, 1_000_000_000)
        numbers = [*pose.T_map_camera[:3, 3], *quaternion(pose.T_map_camera[:3, :3])]
        lines.append(f"{seconds}.{nanoseconds:09d} " + " ".join(f"{x:.9g}" for x in numbers))
    write_text(path, "\n".join(lines) + "\n")


def read_trajectory(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Stamps (N,) int64 nanoseconds and poses (N, 4, 4); raises `BadInput`."""
    stamps, poses = [], []
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            stamp, values = int(Decimal(words[0]) * 1_000_000_000), [float(w) for w in words[1:]]
            if len(values) != 7 or not np.isfinite(values).all():
                raise ValueError("seven finite numbers are needed")
            poses.append(_matrix(np.array(values)))
        except (InvalidOperation, ValueError) as error:
            raise BadInput(
                f"{path} line {number}: expected `timestamp tx ty tz qx qy qz qw`, found {line!r}"
            ) from error
        stamps.append(stamp)
    if not poses:
        raise BadInput(f"{path} holds no poses")
    return np.array(stamps, np.int64), np.stack(poses)


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(x, y, z, w) of a rotation matrix, w >= 0."""
    m = np.asarray(rotation, dtype=np.float64)
    # Four times the squares of w, x, y, z; the largest one is divided by.
    squares = 1 + np.array(
        [
            m[0, 0] + m[1, 1] + m[2, 2],
            m[0, 0] - m[1, 1] - m[2, 2],
            m[1, 1] - m[0, 0] - m[2, 2],
            m[2, 2] - m[0, 0] - m[1, 1],
        ]
    )
    products = np.array(
        [
            [squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], squares[1], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], squares[2], m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[3]],
        ]
    )
    wxyz = products[int(squares.argmax())]
    wxyz = wxyz / np.linalg.norm(wxyz) * (-1.0 if wxyz[0] < 0 else 1.0)
    return np.roll(wxyz, -1)


def _matrix(values: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(values[3:])
    if length < 1e-6:
        raise ValueError("a quaternion of length zero")
    x, y, z, w = values[3:] / length
    pose = np.eye(4)
    pose[:3, 3] = values[:3]
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return pose
