"""Triangles by fusing depth maps into a truncated signed distance (Curless and Levoy 1996), with
open3d."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from scal3r_ros import rigid
from scal3r_ros.files import explained, write_bytes
from scal3r_ros.io.exports.map_view import NO_IMAGES, ExportNotPossible, MapView, View, library

_TRUNCATION = 4.0
"""Cells on either side of a surface."""
_FAR = 400.0
"""Depth beyond this many cells is too vague for a surface."""


def write_obj(view: MapView, folder: Path) -> list[Path]:
    """`mesh.obj`, colours as numbers behind the vertices."""
    return [_save(view, folder / "mesh.obj")]


def write_glb(view: MapView, folder: Path) -> list[Path]:
    """`mesh.glb`."""
    return [_save(view, folder / "mesh.glb")]


def _save(view: MapView, path: Path) -> Path:
    open3d = library("open3d", "mesh")
    mesh = _fused(open3d, view)
    if not len(mesh.triangles):
        raise ExportNotPossible(f"no surface was found; {NO_IMAGES}")
    with tempfile.TemporaryDirectory() as folder, explained(path):
        made = Path(folder) / path.name
        if not open3d.io.write_triangle_mesh(str(made), mesh, write_vertex_normals=False):
            raise ExportNotPossible(f"open3d could not write {path.name}")
        write_bytes(path, made.read_bytes())
    return path


def _fused(open3d: Any, view: MapView) -> Any:
    edge = max(0.4 * view.resolution, 2.0 * view.voxel_size)
    volume = open3d.pipelines.integration.ScalableTSDFVolume(
        voxel_length=edge,
        sdf_trunc=_TRUNCATION * edge,
        color_type=open3d.pipelines.integration.TSDFVolumeColorType.RGB8,
    )
    for item in view.views():
        depth = np.nan_to_num(item.depth, nan=0.0, posinf=0.0).astype(np.float32)
        image = open3d.geometry.RGBDImage.create_from_color_and_depth(
            open3d.geometry.Image(_colours(item)),
            open3d.geometry.Image(np.ascontiguousarray(depth)),
            depth_scale=1.0,
            depth_trunc=_FAR * edge,
            convert_rgb_to_intensity=False,
        )
        height, width = depth.shape
        K = item.depth_intrinsics
        camera = open3d.camera.PinholeCameraIntrinsic(
            width, height, K[0, 0], K[1, 1], K[0, 2] - 0.5, K[1, 2] - 0.5
        )
        volume.integrate(image, camera, rigid.inverse(item.T_map_camera))
    return volume.extract_triangle_mesh()


def _colours(item: View) -> np.ndarray:
    """The image at the pixels of the depth (h, w, 3)."""
    height, width = item.depth.shape
    warp = item.intrinsics @ np.linalg.inv(item.depth_intrinsics)
    u = (np.arange(width) + 0.5) * warp[0, 0] + warp[0, 2] - 0.5
    v = (np.arange(height) + 0.5) * warp[1, 1] + warp[1, 2] - 0.5
    columns, rows = np.meshgrid(u.astype(np.float32), v.astype(np.float32))
    moved = cv2.remap(item.rgb, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(moved)
