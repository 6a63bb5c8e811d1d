"""Triangles through the points, by screened Poisson reconstruction (Kazhdan and Hoppe 2013), with
open3d."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from scal3r_ros.files import explained, write_bytes
from scal3r_ros.io.exports.map_view import ExportNotPossible, MapView, library, require_points

_NEIGHBOURS = 20
"""Points around one that tell its normal."""
_DEPTH = 9
"""Levels of the octree: the longest side of the map is cut into 2**9 cells."""
_AWAY = 3.0
"""Triangles further from every point than this many cells of the map's grids are made up."""


def write_obj(view: MapView, folder: Path) -> list[Path]:
    """`mesh.obj`, colours as numbers behind the vertices."""
    return [_save(view, folder / "mesh.obj")]


def write_glb(view: MapView, folder: Path) -> list[Path]:
    """`mesh.glb`."""
    return [_save(view, folder / "mesh.glb")]


def _save(view: MapView, path: Path) -> Path:
    open3d = library("open3d", "mesh")
    require_points(view)
    mesh = _surface(open3d, view)
    if not len(mesh.triangles):
        raise ExportNotPossible("no surface was found: the points are too few or too far apart")
    with tempfile.TemporaryDirectory() as folder, explained(path):
        made = Path(folder) / path.name
        if not open3d.io.write_triangle_mesh(str(made), mesh, write_vertex_normals=False):
            raise ExportNotPossible(f"open3d could not write {path.name}")
        write_bytes(path, made.read_bytes())
    return path


def _surface(open3d: Any, view: MapView) -> Any:
    """A closed surface through the points, of which only what lies near them is kept."""
    points = view.cloud.points.astype(np.float64)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    cloud.colors = open3d.utility.Vector3dVector(view.cloud.colors / 255.0)
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(_NEIGHBOURS))
    cloud.normals = open3d.utility.Vector3dVector(_facing(view, points, np.asarray(cloud.normals)))
    mesh, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=_DEPTH)
    away = cKDTree(points).query(np.asarray(mesh.vertices))[0]
    mesh.remove_vertices_by_mask(away > _AWAY * view.resolution)
    return mesh


def _facing(view: MapView, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Normals (N, 3) turned to the nearest camera, which most likely saw the point."""
    cameras = view.matrices[:, :3, 3]
    nearest = cameras[cKDTree(cameras).query(points)[1]]
    towards = ((nearest - points) * normals).sum(axis=1, keepdims=True)
    return normals * np.where(towards < 0, -1.0, 1.0)
