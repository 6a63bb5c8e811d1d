"""What came out of the incremental mapper, and which frames of it can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.reconstruct.sfm.features import Features

MIN_OBSERVATIONS = 30
"""Fewer triangulated features do not fix a camera well enough to publish its pose."""
MIN_SHARED = 20
"""Frames that see fewer common points are not joined firmly."""
_MIN_ANGLE = np.radians(1.0)
"""Points whose rays are closer together say nothing about depth."""
_EPIPOLAR_ERROR = 4.0
"""Distance from the epipolar line beyond which a match contradicts two poses, px."""
_MIN_SUPPORT = 0.5
"""Smallest share of the matches of two frames that must agree with their poses."""
_LEAST_ERROR = 0.3
"""Positions of features are not believed better than this, px."""


@dataclass(frozen=True)
class Tracks:
    """Points and the features that show them; all arrays (E,) have one entry per observation."""

    points: np.ndarray
    """(P, 3) float64, model frame."""
    point: np.ndarray
    """(E,) int, row of `points`."""
    frame: np.ndarray
    """(E,) int, row of the frame."""
    feature: np.ndarray
    """(E,) int, index into the frame's features."""

    def of(self, frames: Sequence[int]) -> Tracks:
        """Of some frames only, counted anew in the given order; points that fewer than two of them
        see are left out."""
        rows = np.full(max([*frames, *self.frame.tolist(), -1]) + 1, -1)
        rows[list(frames)] = np.arange(len(frames))
        kept = rows[self.frame] >= 0
        seen = np.bincount(self.point[kept], minlength=len(self.points))
        kept &= seen[self.point] >= 2
        used, point = np.unique(self.point[kept], return_inverse=True)
        return Tracks(self.points[used], point, rows[self.frame[kept]], self.feature[kept])


@dataclass(frozen=True)
class Model:
    """The frames that were registered well."""

    positions: tuple[int, ...]
    """Positions among the frames given, increasing."""
    T_model_camera: np.ndarray
    """(S, 4, 4) float64."""
    tracks: Tracks
    """Its frames are rows of `positions`."""
    angles: np.ndarray
    """(P,) how far apart the rays to each point are, rad."""
    errors: np.ndarray
    """(P,) mean reprojection error of each point, px."""
    camera: Any
    """The `pycolmap.Camera` after refinement."""

    def observations(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features (N,) of a frame with a usable depth, their z-depth (N,) in model units and its
        inverse relative standard deviation (N,)."""
        tracks = self.tracks
        seen = (tracks.frame == row) & (self.angles[tracks.point] >= _MIN_ANGLE)
        point = tracks.point[seen]
        T_camera_model = np.linalg.inv(self.T_model_camera[row])
        depth = tracks.points[point] @ T_camera_model[2, :3] + T_camera_model[2, 3]
        lengths = np.bincount(tracks.point, minlength=len(tracks.points))[point]
        error = np.maximum(self.errors[point], _LEAST_ERROR) / self.camera.mean_focal_length()
        certainty = self.angles[point] * np.sqrt(lengths) / error
        good = depth > 0
        return tracks.feature[seen][good], depth[good], certainty[good]


def judge(
    found: Any,
    image_ids: list[int],
    features: Sequence[Features],
    geometries: Mapping[tuple[int, int], Any],
    max_error: float,
) -> Model:
    """Keep the frames of a `pycolmap.Reconstruction` that many well-triangulated points hold, that
    are firmly joined, and whose poses do not contradict what pairs of them show; raises
    `ReconstructionFailed`."""
    error = found.compute_mean_reprojection_error()
    if not error < max_error / 2:
        raise ReconstructionFailed(f"mean reprojection error of {error:.1f} px")
    whole = _read(found, image_ids)
    held = [row for row in range(len(whole.positions)) if _is_held(whole, row)]
    joined = _joined(whole, held, features, geometries)
    if len(joined) < 2:
        raise ReconstructionFailed("fewer than two frames are held by enough common points")
    tracks = whole.tracks.of(joined)
    rows = np.isin(np.arange(len(whole.tracks.points)), _points_of(whole.tracks, joined))
    return Model(
        tuple(whole.positions[row] for row in joined),
        whole.T_model_camera[joined],
        tracks,
        whole.angles[rows],
        whole.errors[rows],
        whole.camera,
    )


def _read(found: Any, image_ids: list[int]) -> Model:
    """Everything that is registered, as arrays."""
    positions = [
        p for p, i in enumerate(image_ids) if found.exists_image(i) and found.image(i).has_pose
    ]
    row_of = {image_ids[position]: row for row, position in enumerate(positions)}
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    for row, position in enumerate(positions):
        poses[row, :3] = found.image(image_ids[position]).cam_from_world().inverse().matrix()
    points, errors, elements = [], [], []
    for number, point_id in enumerate(sorted(found.point3D_ids())):
        point = found.point3D(point_id)
        points.append(point.xyz)
        errors.append(point.error)
        elements += [
            (number, row_of[e.image_id], e.point2D_idx)
            for e in point.track.elements
            if e.image_id in row_of
        ]
    table = np.array(elements, np.int64).reshape(-1, 3)
    tracks = Tracks(np.array(points).reshape(-1, 3), *table.T)
    camera = next(iter(found.cameras.values()))
    angles = ray_angles(tracks, poses[:, :3, 3])
    return Model(tuple(positions), poses, tracks, angles, np.array(errors), camera)


def ray_angles(tracks: Tracks, centres: np.ndarray) -> np.ndarray:
    """(P,) twice the largest angle (rad) between a point's rays and their mean."""
    rays = centres[tracks.frame] - tracks.points[tracks.point]
    rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    mean = np.zeros_like(tracks.points)
    np.add.at(mean, tracks.point, rays)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    aside = np.linalg.norm(rays - mean[tracks.point], axis=1)
    widest = np.zeros(len(tracks.points))
    np.maximum.at(widest, tracks.point, aside)
    return 2 * widest


def _is_held(model: Model, row: int) -> bool:
    return len(model.observations(row)[0]) >= MIN_OBSERVATIONS


def _joined(
    model: Model,
    held: list[int],
    features: Sequence[Features],
    geometries: Mapping[tuple[int, int], Any],
) -> list[int]:
    """The most rows that are joined, directly or through others: by MIN_SHARED common points, and
    without matches that contradict their poses."""
    tracks = model.tracks
    sees = np.zeros((len(model.positions), len(tracks.points)), np.float32)
    sees[tracks.frame, tracks.point] = model.angles[tracks.point] >= _MIN_ANGLE
    linked = sees @ sees.T >= MIN_SHARED
    for first in held:
        for second in held:
            geometry = geometries.get((model.positions[first], model.positions[second]))
            if geometry is not None and linked[first, second]:
                pair = [features[model.positions[row]] for row in (first, second)]
                agrees = _support(model, first, second, pair, geometry) >= _MIN_SUPPORT
                linked[first, second] = linked[second, first] = agrees
    waiting = list(held)
    best: list[int] = []
    while waiting:
        group, border = [], [waiting.pop(0)]
        while border:
            group.append(border.pop())
            near = [row for row in waiting if linked[group[-1], row]]
            border += near
            waiting = [row for row in waiting if row not in near]
        best = max(best, sorted(group), key=len)
    return best


def _support(
    model: Model, first: int, second: int, pair: Sequence[Features], geometry: Any
) -> float:
    """Share of the verified matches of two frames that lie near the epipolar lines of their
    poses."""
    K = model.camera.calibration_matrix()
    T = np.linalg.inv(model.T_model_camera[second]) @ model.T_model_camera[first]
    x, y, z = T[:3, 3] / max(np.linalg.norm(T[:3, 3]), 1e-12)
    E = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ T[:3, :3]
    F = np.linalg.inv(K).T @ E @ np.linalg.inv(K)
    sides = [
        np.c_[item.pixels[geometry.inlier_matches[:, i]], np.ones(len(geometry.inlier_matches))]
        for i, item in enumerate(pair)
    ]
    lines = sides[0] @ F.T
    distance = np.abs((sides[1] * lines).sum(axis=1))
    distance /= np.maximum(np.linalg.norm(lines[:, :2], axis=1), 1e-12)
    return float((distance < _EPIPOLAR_ERROR).mean())


def _points_of(tracks: Tracks, frames: list[int]) -> np.ndarray:
    """Points that at least two of the frames see."""
    seen = np.bincount(tracks.point[np.isin(tracks.frame, frames)], minlength=len(tracks.points))
    return np.flatnonzero(seen >= 2)
