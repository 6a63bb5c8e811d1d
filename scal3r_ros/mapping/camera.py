"""Pinhole cameras: decoding the network's pose vectors, rays, unprojection and projection.

Pixel (column u, row v) has its centre at (u + 0.5, v + 0.5); OpenCV axes; depth is z-depth.
"""

from __future__ import annotations

import numpy as np


def decode_cameras(encoding: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pose vectors (S, 9) = translation, quaternion xyzw, vertical and horizontal field of view.

    The network's transform is world-to-camera; returned are T_chunk_camera (S, 4, 4) and pinhole
    matrices (S, 3, 3).
    """
    encoding = np.asarray(encoding, dtype=np.float64)
    rotation = _quaternion_matrix(encoding[:, 3:7])
    pose = np.zeros((len(encoding), 4, 4))
    pose[:, :3, :3] = np.swapaxes(rotation, 1, 2)
    pose[:, :3, 3] = -(pose[:, :3, :3] @ encoding[:, :3, None])[..., 0]
    pose[:, 3, 3] = 1.0
    half_fov = np.clip(encoding[:, 7:9] / 2.0, 1e-4, np.pi / 2 - 1e-4)
    intrinsics = np.zeros((len(encoding), 3, 3))
    intrinsics[:, 0, 0] = width / 2.0 / np.tan(half_fov[:, 1])
    intrinsics[:, 1, 1] = height / 2.0 / np.tan(half_fov[:, 0])
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2.0, height / 2.0, 1.0
    return pose, intrinsics


def unproject(
    depth: np.ndarray,
    intrinsics: np.ndarray,
    T_chunk_camera: np.ndarray,
    step: int = 1,
    start: int = 0,
) -> np.ndarray:
    """Points (S, h, w, 3) float32 in chunk coordinates of every `step`-th pixel; NaN depth stays
    NaN.

    depth (S, H, W), intrinsics (S, 3, 3) in pixels of `depth`, T_chunk_camera (S, 4, 4).
    """
    depth = np.asarray(depth, dtype=np.float32)[:, start::step, start::step]
    columns, rows = _directions(intrinsics, T_chunk_camera, depth.shape[1:], step, start)
    points = np.empty((*depth.shape, 3), dtype=np.float32)
    for frame, (plane, T) in enumerate(zip(depth, T_chunk_camera)):
        for axis in range(3):
            along = rows[frame, axis, :, None] + columns[frame, axis]
            along *= plane
            along += np.float32(T[axis, 3])
            points[frame, :, :, axis] = along
    return points


def project(
    points: np.ndarray, intrinsics: np.ndarray, T_world_camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (N, 2) and z-depth (N,) of world points (N, 3) in one camera."""
    rotation, centre = T_world_camera[:3, :3], T_world_camera[:3, 3]
    local = (points - centre) @ rotation
    image = local @ intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return image[:, :2] / image[:, 2:], local[:, 2]


def scale_intrinsics(intrinsics: np.ndarray, factor_x: float, factor_y: float) -> np.ndarray:
    """Pinhole matrices (..., 3, 3) for an image resized by the factors; pixel centres stay at
    +0.5."""
    return np.array([factor_x, factor_y, 1.0])[:, None] * np.asarray(intrinsics, np.float64)


def valid_pixels(depth: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Mask of pixels with finite positive depth and confidence."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(depth) & (depth > 0) & np.isfinite(confidence) & (confidence > 0)


def _directions(intrinsics, T_chunk_camera, shape, step, start) -> tuple[np.ndarray, np.ndarray]:
    """Chunk-frame viewing directions (z-depth 1) as a sum of a part per column and a part per row.

    Returns (S, 3, w) and (S, 3, h) float32: rotation @ K^-1 @ (u, v, 1) is affine in u and in v.
    """
    turned = T_chunk_camera[:, :3, :3] @ np.linalg.inv(intrinsics)
    u = (start + step * np.arange(shape[1])) + 0.5
    v = (start + step * np.arange(shape[0])) + 0.5
    columns = turned[:, :, 0, None] * u
    rows = turned[:, :, 1, None] * v + turned[:, :, 2, None]
    return columns.astype(np.float32), rows.astype(np.float32)


def _quaternion_matrix(quaternion: np.ndarray) -> np.ndarray:
    x, y, z, w = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)
