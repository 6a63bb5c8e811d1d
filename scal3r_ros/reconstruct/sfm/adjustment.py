"""Bundle adjustment with a prior: cameras and points from matched features, held weakly to where
they were predicted.

Levenberg-Marquardt on the normal equations with the points eliminated (Triggs et al., "Bundle
adjustment, a modern synthesis", 2000, section 6), Cauchy's kernel on pixels. The depth that was
predicted for a point and the pose of every camera are measurements too, so what no feature fixes
stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import bsr_array
from scipy.spatial.transform import Rotation

_NARROWER = 2.0
"""By how much the kernel is made narrower at a time."""
_STEPS = 3
"""Steps with one kernel."""
_LEAST_DEPTH = 0.02
"""Points come no closer to a camera than this share of the typical depth."""


@dataclass(frozen=True)
class Observations:
    """Points in images; arrays (E,) have one entry per observation."""

    frame: np.ndarray
    """(E,) int, row of the camera."""
    point: np.ndarray
    """(E,) int, row of the point."""
    rays: np.ndarray
    """(E, 2) float64, image coordinates at depth 1."""
    depth: np.ndarray
    """(E,) float64 predicted z-depth of the point in the camera; NaN where none is known."""
    spread: np.ndarray
    """(E,) float64, how much less precise than others it is: a factor of the deviation."""


@dataclass(frozen=True)
class Scene:
    """Cameras and points."""

    T_camera_world: np.ndarray
    """(S, 4, 4) float64, rigid."""
    points: np.ndarray
    """(P, 3) float64."""

    def seen(self, observations: Observations) -> np.ndarray:
        """(E, 3) the observed points in their cameras."""
        T = self.T_camera_world[observations.frame]
        return np.einsum("eij,ej->ei", T[:, :3, :3], self.points[observations.point]) + T[:, :3, 3]

    def errors(self, observations: Observations) -> np.ndarray:
        """(E,) distances between points and their observations, at depth 1; infinite behind the
        camera."""
        seen = self.seen(observations)
        ahead = seen[:, 2] > 0
        flat = seen[:, :2] / np.where(ahead, seen[:, 2], 1.0)[:, None]
        return np.where(ahead, np.linalg.norm(flat - observations.rays, axis=1), np.inf)


@dataclass(frozen=True)
class Priors:
    """Standard deviations of what was predicted."""

    pixel: float
    """Of an observation that is right, at depth 1."""
    widest: float
    """The same at the start, when cameras are where they were predicted."""
    log_depth: float
    rotation: float
    """rad."""
    translation: float


@dataclass(frozen=True)
class _Equations:
    """Normal equations with the points apart: (S, 6, 6), (P, 3, 3), (E, 6, 3) and gradients."""

    cameras: np.ndarray
    points: np.ndarray
    mixed: np.ndarray
    camera_gradient: np.ndarray
    point_gradient: np.ndarray
    cost: float


def adjust(start: Scene, observations: Observations, priors: Priors) -> Scene:
    """The most probable scene; nothing moves but to lower the cost."""
    scene = start
    rounds = 1 + int(np.ceil(np.log(priors.widest / priors.pixel) / np.log(_NARROWER)))
    for width in np.geomspace(priors.widest, priors.pixel, max(rounds, 2)):
        kernel = replace(priors, pixel=float(width))
        damping = 1e-3
        now = _equations(scene, start, observations, kernel)
        for _ in range(_STEPS):
            moved = _step(scene, now, observations, damping)
            after = _equations(moved, start, observations, kernel)
            if after.cost < now.cost:
                scene, now, damping = moved, after, damping / 5
            else:
                damping *= 20
    return scene


def _equations(scene: Scene, start: Scene, seen: Observations, priors: Priors) -> _Equations:
    """Linearised at `scene`; cameras turn and shift on the left of T_camera_world."""
    local = scene.seen(seen)
    typical = np.median(np.abs(local[:, 2]))
    depth = np.maximum(local[:, 2], _LEAST_DEPTH * typical)
    flat = local[:, :2] / depth[:, None]
    by_local = np.zeros((len(depth), 3, 3))  # of the residuals, by the point in the camera
    by_local[:, 0, 0] = by_local[:, 1, 1] = 1 / depth
    by_local[:, :2, 2] = -flat / depth[:, None]
    by_local[:, 2, 2] = 1 / depth
    known = np.isfinite(seen.depth)
    log_ratio = np.log(depth / np.where(known, seen.depth, depth))
    residual = np.concatenate([flat - seen.rays, log_ratio[:, None]], axis=1)
    weight, cost = _weights(residual, known, priors.pixel * seen.spread, priors.log_depth)
    by_camera = np.concatenate([-by_local @ _cross(local), by_local], axis=2)  # rotation, shift
    by_point = by_local @ scene.T_camera_world[seen.frame, :3, :3]
    weighted = by_camera.transpose(0, 2, 1) * weight[:, None, :]
    weighted_point = by_point.transpose(0, 2, 1) * weight[:, None, :]
    cameras, shifts = _pose_prior(scene, start, priors)
    cost += float((cameras.diagonal(axis1=1, axis2=2) * shifts**2).sum())
    gradient = np.einsum("sij,sj->si", cameras, shifts)
    np.add.at(cameras, seen.frame, weighted @ by_camera)
    np.add.at(gradient, seen.frame, np.einsum("eij,ej->ei", weighted, residual))
    points = np.zeros((len(scene.points), 3, 3))
    point_gradient = np.zeros((len(scene.points), 3))
    np.add.at(points, seen.point, weighted_point @ by_point)
    np.add.at(point_gradient, seen.point, np.einsum("eij,ej->ei", weighted_point, residual))
    return _Equations(cameras, points, weighted @ by_point, gradient, point_gradient, cost)


def _weights(
    residual: np.ndarray, known: np.ndarray, pixel: np.ndarray, log_depth: float
) -> tuple[np.ndarray, float]:
    """(E, 3) of the two image coordinates, which share Cauchy's kernel, and of the logarithm of
    depth, which has its own; and the cost. `pixel` (E,) is the width of the kernel."""
    squares = (residual[:, :2] ** 2).sum(axis=1) / pixel**2
    deep = np.where(known, residual[:, 2] / log_depth, 0.0) ** 2
    image = 1 / (1 + squares) / pixel**2
    depth = np.where(known, 1 / (1 + deep) / log_depth**2, 0.0)
    cost = float(np.log1p(squares).sum() + np.log1p(deep).sum())
    return np.stack([image, image, depth], axis=1), cost


def _pose_prior(scene: Scene, start: Scene, priors: Priors) -> tuple[np.ndarray, np.ndarray]:
    """Information (S, 6, 6) and how far the cameras are from the start (S, 6)."""
    shifts = pose_changes(start.T_camera_world, scene.T_camera_world)
    information = [1 / priors.rotation**2] * 3 + [1 / priors.translation**2] * 3
    return np.tile(np.diag(information), (len(shifts), 1, 1)), shifts


def pose_changes(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(S, 6) rotation vector (rad) and shift of camera centres, in the camera's axes."""
    apart = after @ np.linalg.inv(before)
    turn = Rotation.from_matrix(apart[:, :3, :3])
    return np.concatenate([turn.as_rotvec(), apart[:, :3, 3]], axis=1)


def _step(scene: Scene, equations: _Equations, seen: Observations, damping: float) -> Scene:
    """The scene after one damped step; points are eliminated first (Schur complement)."""
    cameras, points = equations.cameras.copy(), equations.points.copy()
    for blocks in (cameras, points):
        diagonal = np.einsum("nii->ni", blocks)
        diagonal *= 1 + damping
        diagonal += 1e-12 + damping * 1e-6 * diagonal.max()
    inverse = np.linalg.inv(points)
    size, count = len(cameras), len(points)
    mixed = _sparse(equations.mixed, seen.frame, seen.point, (6 * size, 3 * count))
    eliminated = mixed @ _sparse(inverse, np.arange(count), np.arange(count), (3 * count,) * 2)
    reduced = -(eliminated @ mixed.T).toarray()
    for row, block in enumerate(cameras):
        reduced[6 * row : 6 * row + 6, 6 * row : 6 * row + 6] += block
    right = eliminated @ equations.point_gradient.ravel() - equations.camera_gradient.ravel()
    move = np.linalg.solve(reduced, right)
    back = -equations.point_gradient.ravel() - mixed.T @ move
    shift = np.einsum("pij,pj->pi", inverse, back.reshape(-1, 3))
    turn = np.tile(np.eye(4), (size, 1, 1))
    turn[:, :3, :3] = Rotation.from_rotvec(move.reshape(-1, 6)[:, :3]).as_matrix()
    turn[:, :3, 3] = move.reshape(-1, 6)[:, 3:]
    return Scene(turn @ scene.T_camera_world, scene.points + shift)


def _sparse(
    blocks: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> bsr_array:
    """Block matrix from blocks (E, r, c) at block rows and columns; a place is given once."""
    height, width = blocks.shape[1:]
    order = np.lexsort((columns, rows))
    starts = np.searchsorted(rows[order], np.arange(shape[0] // height + 1))
    return bsr_array((blocks[order], columns[order], starts), shape=shape)


def _cross(vectors: np.ndarray) -> np.ndarray:
    """(E, 3, 3) matrices that multiply like the cross product with vectors (E, 3)."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(-1, 3, 3)
