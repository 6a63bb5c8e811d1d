"""Poses of all frames as TUM, KITTI and EuRoC text."""

from __future__ import annotations

from pathlib import Path

from scal3r_ros import rigid
from scal3r_ros.files import write_text
from scal3r_ros.io.exports.map_view import MapView
from scal3r_ros.io.stamps import seconds_text
from scal3r_ros.io.tum import write_trajectory


def write_tum(view: MapView, folder: Path) -> list[Path]:
    """`seconds x y z qx qy qz qw`, camera to map."""
    path = folder / "trajectory_tum.txt"
    write_trajectory(path, view.poses)
    return [path]


def write_kitti(view: MapView, folder: Path) -> list[Path]:
    """Rows of 3x4 matrices, camera to first camera as in the benchmark; times in a file beside."""
    poses = view.matrices
    relative = rigid.inverse(poses[0]) @ poses if len(poses) else poses
    rows = [" ".join(f"{x:.9g}" for x in T[:3].ravel()) for T in relative]
    files = [folder / "trajectory_kitti.txt", folder / "times.txt"]
    write_text(files[0], "".join(row + "\n" for row in rows))
    write_text(files[1], "".join(seconds_text(pose.stamp_ns) + "\n" for pose in view.poses))
    return files


def write_euroc(view: MapView, folder: Path) -> list[Path]:
    """Nanoseconds, position, quaternion with the scalar first; no velocities or biases."""
    names = ["timestamp", "p_RS_R_x [m]", "p_RS_R_y [m]", "p_RS_R_z [m]"]
    names += ["q_RS_w []", "q_RS_x []", "q_RS_y []", "q_RS_z []"]
    lines = ["#" + ", ".join(names)]
    for pose in view.poses:
        x, y, z, w = rigid.quaternion(pose.T_map_camera[:3, :3])
        numbers = (*pose.T_map_camera[:3, 3], w, x, y, z)
        lines.append(f"{pose.stamp_ns}," + ",".join(f"{number:.9g}" for number in numbers))
    path = folder / "trajectory_euroc.csv"
    write_text(path, "\n".join(lines) + "\n")
    return [path]
