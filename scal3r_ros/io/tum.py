"""Trajectories in the TUM format: `seconds tx ty tz qx qy qz qw`, camera to map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.files import write_text
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.stamps import parse_number, seconds_text, to_nanoseconds
from scal3r_ros.io.text_files import read_text
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
    """Stamps (N,) int64 nanoseconds and poses (N, 4, 4); raises `BadInput`.

    Also with commas, a header, comments of `#` and `%`, stamps in other units, EuRoC's ground truth
    (scalar first, velocities behind) and KITTI's rows of twelve, whose times lie beside them.
    """
    path = Path(path)
    lines, header = _rows(path)
    if not lines:
        raise BadInput(f"{path} holds no poses")
    if len(lines[0][1]) == 12:
        return _kitti(path, lines)
    euroc = len(lines[0][1]) == 17 or "q_RS_w" in header
    stamps, poses = [], []
    for number, words in lines:
        try:
            stamps.append(parse_number(words[0]))
            poses.append(_pose(words[1:], euroc))
        except (ValueError, OverflowError) as error:
            raise BadInput(
                f"{path} line {number}: expected `timestamp tx ty tz qx qy qz qw`, found "
                f"{' '.join(words)[:120]!r} ({error})"
            ) from error
    return np.array(to_nanoseconds(stamps, str(path))[0], np.int64), np.stack(poses)


def _rows(path: Path) -> tuple[list[tuple[int, list[str]]], str]:
    """Line numbers and words of all rows, and the text of header and comments."""
    rows: list[tuple[int, list[str]]] = []
    header = ""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        if words[0][0] in "#%" or (not rows and words[0][0].isalpha() and len(words) >= 8):
            header += line
        else:
            rows.append((number, words))
    return rows, header


def _pose(words: list[str], euroc: bool) -> np.ndarray:
    """(4, 4) of translation and quaternion; raises `ValueError`."""
    values = np.array([float(word) for word in (words[:7] if euroc else words)])
    if len(values) != 7:
        raise ValueError(f"{1 + len(values)} numbers instead of 8")
    if not np.isfinite(values).all() or np.abs(values).max() > 1e12:
        raise ValueError("a number is not finite, or beyond all sense")
    quaternion = np.roll(values[3:], -1) if euroc else values[3:]
    return rigid.from_parts(rigid.rotation_matrix(quaternion), values[:3])


def _kitti(path: Path, lines: list[tuple[int, list[str]]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a 3x4 matrix; their times are those of the sequence of the same name."""
    places = (path.with_name("times.txt"), path.parents[1] / "sequences" / path.stem / "times.txt")
    times = next((place for place in places if place.is_file()), None)
    if times is None:
        raise BadInput(
            f"{path} has KITTI's rows of 12 numbers, which tell no time; put times.txt beside it"
        )
    try:
        stamps = [parse_number(word) for word in read_text(times).split()]
        values = np.array([[float(word) for word in words] for _, words in lines])
        poses = np.tile(np.eye(4), (len(lines), 1, 1))
        poses[:, :3] = values.reshape(-1, 3, 4)
    except (ValueError, OverflowError) as error:
        raise BadInput(
            f"{path} or {times}: expected rows of 12 numbers and one time: {error}"
        ) from error
    turns = poses[:, :3, :3]
    if not np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-3):
        raise BadInput(f"{path}: the first three columns must be rotations")
    if len(stamps) != len(poses):
        raise BadInput(f"{path} has {len(poses)} poses, {times} has {len(stamps)} times")
    return np.array(to_nanoseconds(stamps, str(times))[0], np.int64), poses
