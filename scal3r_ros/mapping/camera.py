"""Pinhole cameras: decoding the network's pose vectors, rays, unprojection and projection.

Pixel (column u, row v) has its centre at (u + 0.5, v + 0.5); OpenCV axes; depth is z-depth.
"""

from __future__ import annotations

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.mapping.sim3 import Sim3


def decode_cameras(encoding: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pose vectors (S, 9) = translation, quaternion xyzw, vertical and horizontal field of view.

    The network's transform is world-to-camera; returned are T_chunk_camera (S, 4, 4) and pinhole
    matrices (S, 3, 3).
    """
    encoding = np.asarray(encoding, dtype=np.float64)
    T_camera_chunk = rigid.from_parts(rigid.rotation_matrix(encoding[:, 3:7]), encoding[:, :3])
    pose = rigid.inverse(T_camera_chunk)
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
    points = np.empty((*depth.shape, 3), dtype=np.float32)
    for frame, plane in enumerate(depth):
        K, T = intrinsics[frame], T_chunk_camera[frame]
        for axis, coordinate in enumerate(unproject_planes(plane, K, T, step=step, start=start)):
            points[frame, :, :, axis] = coordinate
    return points


def unproject_planes(
    depth: np.ndarray,
    intrinsics: np.ndarray,
    T_chunk_camera: np.ndarray,
    S_target_chunk: Sim3 | None = None,
    step: int = 1,
    start: int = 0,
) -> list[np.ndarray]:
    """The three coordinates (h, w) float32 of one frame's pixels, in the chunk or a target frame.

    depth (h, w) holds every `step`-th pixel. scale * rotation @ K^-1 @ (u, v, 1) is affine in u and
    in v, so a point costs three additions and multiplications.
    """
    S = Sim3.identity() if S_target_chunk is None else S_target_chunk
    turned = S.scale * S.rotation @ T_chunk_camera[:3, :3] @ np.linalg.inv(intrinsics)
    centre = S.apply(T_chunk_camera[None, :3, 3])[0].astype(np.float32)
    u = (start + step * np.arange(depth.shape[1])) + 0.5
    v = (start + step * np.arange(depth.shape[0])) + 0.5
    columns = (turned[:, 0, None] * u).astype(np.float32)
    rows = (turned[:, 1, None] * v + turned[:, 2, None]).astype(np.float32)
    planes = []
    for axis in range(3):
        plane = rows[axis, :, None] + columns[axis]
        plane *= depth
        plane += centre[axis]
        planes.append(plane)
    return planes


def project(
    points: np.ndarray, intrinsics: np.ndarray, T_world_camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (N, 2) and z-depth (N,) of world points (N, 3) in one camera."""
    rotation, centre = T_world_camera[:3, :3], T_world_camera[:3, 3]
    local = (points - centre) @ rotation
    image = local @ intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return image[:, :2] / image[:, 2:], local[:, 2]


def valid_pixels(depth: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Mask of pixels with finite positive depth and confidence."""
    with np.errstate(invalid="ignore"):
        return (depth > 0) & (depth < np.inf) & (confidence > 0) & (confidence < np.inf)
