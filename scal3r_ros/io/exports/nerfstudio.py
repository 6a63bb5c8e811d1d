"""`transforms.json` with images and points, as nerfstudio's data parser reads it.

Its cameras have OpenGL's axes (x right, y up, z backwards); the world stays that of the map.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from scal3r_ros.files import write_text
from scal3r_ros.io.exports.images import StoredImage, files_in, replaced_folder, store_images
from scal3r_ros.io.exports.map_view import MapView
from scal3r_ros.io.ply import write_cloud

OPENCV_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Axes of an OpenGL camera in those of an OpenCV camera."""


def write(view: MapView, folder: Path) -> list[Path]:
    """`nerfstudio/transforms.json`, `images/`, and `points.ply` to start from."""
    target = folder / "nerfstudio"
    with replaced_folder(target) as made:
        images = store_images(view, made / "images")
        facts = {
            "camera_model": "OPENCV",
            "applied_transform": np.eye(4)[:3].tolist(),
            "ply_file_path": "points.ply",
            "frames": [_frame(image) for image in images],
        }
        cloud = view.cloud
        write_cloud(made / "points.ply", cloud.points, cloud.colors, cloud.confidence, view.note)
        write_text(made / "transforms.json", json.dumps(facts, indent=1))
    return files_in(target)


def _frame(image: StoredImage) -> dict:
    fx, fy, cx, cy = image.pinhole
    return {
        "file_path": f"images/{image.name}",
        "w": image.width, "h": image.height,
        "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy,
        "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0,
        "transform_matrix": (image.T_map_camera @ OPENCV_OPENGL).tolist(),
    }  # fmt: skip
