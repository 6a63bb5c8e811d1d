"""Trajectories in the TUM format: `seconds tx ty tz qx qy qz qw`, camera to map."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.files import write_text
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.stamps import seconds_text
from scal3r_ros.records import TrajectoryPose


def write_trajectory(path: str | Path, poses: Sequence[TrajectoryPose]) -> None:
    """Write poses; stamps keep their nanoseconds, numbers enough digits to be read back exactly
    as float32."""
    lines = ["# timestamp tx ty tz qx qy qz qw   (camera to map)"]
    for pose in poses:
        numbers = [*pose.T_map_camera[:3, 3], *rigid.quaternion(pose.T_map_camera[:3, :3])]
        lines.append(f"{seconds_text(pose.stamp_ns)} " + " ".join(f"{x:.9g}" for x in numbers))
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
            turn = rigid.rotation_matrix(np.array(values[3:]))
            poses.append(rigid.from_parts(turn, np.array(values[:3])))
        except (InvalidOperation, ValueError) as error:
            raise BadInput(
                f"{path} line {number}: expected `timestamp tx ty tz qx qy qz qw`, found {line!r}"
            ) from error
        stamps.append(stamp)
    if not poses:
        raise BadInput(f"{path} holds no poses")
    return np.array(stamps, np.int64), np.stack(poses)
