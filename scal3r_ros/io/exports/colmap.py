"""A COLMAP model with its images: for Gaussian splatting, OpenMVS, and COLMAP itself.

Text and binary form as COLMAP documents them (cameras, images, points3D). Poses go from world to
camera, quaternions have their scalar first. Points carry no tracks: what was seen where is not
known of fused points.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.files import write_bytes, write_text
from scal3r_ros.io.exports.images import StoredImage, files_in, replaced_folder, store_images
from scal3r_ros.io.exports.map_view import MapView

_PINHOLE = 1
"""COLMAP's number of the camera model PINHOLE: fx, fy, cx, cy."""
_MOST_POINTS = 1_000_000
"""Larger maps are thinned evenly: who starts from points wants no more."""


def write(view: MapView, folder: Path) -> list[Path]:
    """`colmap/images` and `colmap/sparse/0` with cameras.txt, images.txt, points3D.txt."""
    return _write(view, folder / "colmap", binary=False)


def write_binary(view: MapView, folder: Path) -> list[Path]:
    """The same with .bin files."""
    return _write(view, folder / "colmap", binary=True)


def _write(view: MapView, target: Path, binary: bool) -> list[Path]:
    with replaced_folder(target) as folder:
        images = store_images(view, folder / "images")
        cameras = _cameras(images)
        step = max(1, -(-len(view.cloud) // _MOST_POINTS))
        points, colors = view.cloud.points[::step], view.cloud.colors[::step]
        model = folder / "sparse" / "0"
        if binary:
            write_bytes(model / "cameras.bin", _binary_cameras(cameras))
            write_bytes(model / "images.bin", _binary_images(images, cameras))
            write_bytes(model / "points3D.bin", _binary_points(points, colors))
        else:
            write_text(model / "cameras.txt", _text_cameras(cameras))
            write_text(model / "images.txt", _text_images(images, cameras))
            write_text(model / "points3D.txt", _text_points(points, colors))
    return files_in(target)


def _cameras(images: list[StoredImage]) -> dict[tuple, int]:
    """Numbers of all different cameras: (width, height, fx, fy, cx, cy)."""
    cameras: dict[tuple, int] = {}
    for image in images:
        cameras.setdefault(_camera(image), len(cameras) + 1)
    return cameras


def _camera(image: StoredImage) -> tuple:
    return image.width, image.height, *image.pinhole


def _pose(image: StoredImage) -> list[float]:
    """Quaternion w x y z and translation, world to camera."""
    T = rigid.inverse(image.T_map_camera)
    x, y, z, w = rigid.quaternion(T[:3, :3])
    return [float(value) for value in (w, x, y, z, *T[:3, 3])]


def _text_cameras(cameras: dict[tuple, int]) -> str:
    lines = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, fx, fy, cx, cy"]
    for camera, number in cameras.items():
        lines.append(f"{number} PINHOLE " + " ".join(f"{x:.17g}" for x in camera))
    return "\n".join(lines) + "\n"


def _text_images(images: list[StoredImage], cameras: dict[tuple, int]) -> str:
    lines = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME; then its 2D points: none"]
    for number, image in enumerate(images, 1):
        numbers = " ".join(f"{x:.17g}" for x in _pose(image))
        lines += [f"{number} {numbers} {cameras[_camera(image)]} {image.name}", ""]
    return "\n".join(lines) + "\n"


def _text_points(points: np.ndarray, colors: np.ndarray) -> str:
    lines = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK"]
    for number, (point, color) in enumerate(zip(points.tolist(), colors.tolist()), 1):
        where = " ".join(f"{x:.9g}" for x in point)
        lines.append(f"{number} {where} {color[0]} {color[1]} {color[2]} 0")
    return "\n".join(lines) + "\n"


def _binary_cameras(cameras: dict[tuple, int]) -> bytes:
    parts = [struct.pack("<Q", len(cameras))]
    for (width, height, *numbers), number in cameras.items():
        parts.append(struct.pack("<IiQQ4d", number, _PINHOLE, width, height, *numbers))
    return b"".join(parts)


def _binary_images(images: list[StoredImage], cameras: dict[tuple, int]) -> bytes:
    parts = [struct.pack("<Q", len(images))]
    for number, image in enumerate(images, 1):
        parts.append(struct.pack("<I7dI", number, *_pose(image), cameras[_camera(image)]))
        parts.append(image.name.encode("ascii") + b"\0" + struct.pack("<Q", 0))
    return b"".join(parts)


def _binary_points(points: np.ndarray, colors: np.ndarray) -> bytes:
    kind = np.dtype(
        [
            ("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"),
            ("track", "<u8"),
        ]
    )  # fmt: skip
    rows = np.zeros(len(points), kind)
    rows["id"] = np.arange(1, len(points) + 1)
    rows["xyz"], rows["rgb"] = points, colors
    return struct.pack("<Q", len(rows)) + rows.tobytes()
