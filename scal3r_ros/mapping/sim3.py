"""The similarity group Sim(3): x -> scale * rotation @ x + translation.

One value holds one transform or an array of them (any leading shape), so that a pose graph works
on all its edges at once.
Tangent vectors have the order translation, rotation vector, log-scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

SMALL_ADJOINT = 0.6
"""Frobenius norm of ad up to which the inverse Jacobian's series is exact to 1e-12."""


@dataclass(frozen=True, eq=False, slots=True)
class Sim3:
    """Frozen similarity transform(s); adjacent names cancel: S_map_chunk @ S_chunk_frame."""

    scale: np.ndarray
    """(...) float64, positive."""
    rotation: np.ndarray
    """(..., 3, 3) float64, proper rotation."""
    translation: np.ndarray
    """(..., 3) float64."""

    def __post_init__(self) -> None:
        scale = np.asarray(self.scale, dtype=np.float64)
        rotation = np.asarray(self.rotation, dtype=np.float64)
        translation = np.asarray(self.translation, dtype=np.float64)
        if rotation.shape != (*scale.shape, 3, 3) or translation.shape != (*scale.shape, 3):
            raise ValueError(
                f"Sim3 needs scale (...), rotation (..., 3, 3) and translation (..., 3); found "
                f"{scale.shape}, {rotation.shape}, {translation.shape}"
            )
        if not (scale > 0).all():
            raise ValueError(f"Sim3 scale must be positive, found {scale.min()}")
        object.__setattr__(self, "scale", scale[()])
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)

    @staticmethod
    def identity(shape: tuple[int, ...] = ()) -> Sim3:
        rotation = np.broadcast_to(np.eye(3), (*shape, 3, 3))
        return Sim3(np.ones(shape), rotation, np.zeros((*shape, 3)))

    @staticmethod
    def from_pose(pose: np.ndarray) -> Sim3:
        """Rigid (..., 4, 4) as a similarity of scale one."""
        pose = np.asarray(pose, dtype=np.float64)
        return Sim3(np.ones(pose.shape[:-2]), pose[..., :3, :3], pose[..., :3, 3])

    @staticmethod
    def stack(items: Sequence[Sim3]) -> Sim3:
        """K transforms as one value of leading shape (K,)."""
        if not items:
            return Sim3.identity((0,))
        return Sim3(
            np.stack([item.scale for item in items]),
            np.stack([item.rotation for item in items]),
            np.stack([item.translation for item in items]),
        )

    def __getitem__(self, index) -> Sim3:
        return Sim3(self.scale[index], self.rotation[index], self.translation[index])

    def __matmul__(self, other: Sim3) -> Sim3:
        """Composition: `(a @ b).apply(x) == a.apply(b.apply(x))`."""
        moved = (self.rotation @ other.translation[..., None])[..., 0]
        translation = np.asarray(self.scale)[..., None] * moved + self.translation
        return Sim3(self.scale * other.scale, self.rotation @ other.rotation, translation)

    def inverse(self) -> Sim3:
        transposed = np.swapaxes(self.rotation, -1, -2)
        back = (transposed @ self.translation[..., None])[..., 0]
        return Sim3(1.0 / self.scale, transposed, -back / np.asarray(self.scale)[..., None])

    def orthonormal(self) -> Sim3:
        """The same transform(s) with rounding errors of the rotation removed."""
        left, _, right = np.linalg.svd(self.rotation)
        return Sim3(self.scale, left @ right, self.translation)

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of one transform, or (..., N, 3) of an array of them; keeps their dtype."""
        dtype = np.result_type(points, np.float32)
        matrix = (np.asarray(self.scale)[..., None, None] * self.rotation).astype(dtype)
        shift = self.translation[..., None, :].astype(dtype)
        return points @ np.swapaxes(matrix, -1, -2) + shift

    def move_pose(self, pose: np.ndarray) -> np.ndarray:
        """Rigid pose(s) (..., 4, 4) seen from the target frame: scale moves positions only."""
        scaled = self @ Sim3.from_pose(pose)
        moved = np.zeros((*np.shape(scaled.scale), 4, 4))
        moved[..., :3, :3] = scaled.rotation
        moved[..., :3, 3] = scaled.translation
        moved[..., 3, 3] = 1.0
        return moved

    def matrix(self) -> np.ndarray:
        """(..., 4, 4) homogeneous matrix with the scale in its rotation block; for export only."""
        matrix = self.move_pose(np.eye(4))
        matrix[..., :3, :3] = np.asarray(self.scale)[..., None, None] * self.rotation
        return matrix

    @staticmethod
    def exp(tangent: np.ndarray) -> Sim3:
        """Group element(s) of tangent vectors (..., 7)."""
        tangent = np.asarray(tangent, dtype=np.float64)
        turn, log_scale = tangent[..., 3:6], tangent[..., 6]
        translation = (_mixing(turn, log_scale) @ tangent[..., :3, None])[..., 0]
        return Sim3(np.exp(log_scale), rotation_exp(turn), translation)

    def log(self) -> np.ndarray:
        """Tangent vectors (..., 7); the rotation angle lies in [0, pi]."""
        turn, log_scale = rotation_log(self.rotation), np.log(self.scale)
        mixing = _mixing(turn, log_scale)
        shift = np.linalg.solve(mixing, self.translation[..., None])[..., 0]
        return np.concatenate([shift, turn, np.asarray(log_scale)[..., None]], axis=-1)

    def adjoint(self) -> np.ndarray:
        """(..., 7, 7) with `S @ exp(x) == exp(Ad x) @ S`."""
        adjoint = np.zeros((*np.shape(self.scale), 7, 7))
        adjoint[..., :3, :3] = np.asarray(self.scale)[..., None, None] * self.rotation
        adjoint[..., :3, 3:6] = skew(self.translation) @ self.rotation
        adjoint[..., :3, 6] = -self.translation
        adjoint[..., 3:6, 3:6] = self.rotation
        adjoint[..., 6, 6] = 1.0
        return adjoint


def rotation_exp(turn: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3)."""
    flat = np.reshape(turn, (-1, 3))
    if not len(flat):
        return np.zeros((*turn.shape[:-1], 3, 3))
    return Rotation.from_rotvec(flat).as_matrix().reshape(*turn.shape[:-1], 3, 3)


def rotation_log(rotation: np.ndarray) -> np.ndarray:
    """Rotation vectors (..., 3) of rotation matrices (..., 3, 3)."""
    flat = np.reshape(rotation, (-1, 3, 3))
    if not len(flat):
        return np.zeros(rotation.shape[:-1])
    return Rotation.from_matrix(flat).as_rotvec().reshape(rotation.shape[:-1])


def skew(vector: np.ndarray) -> np.ndarray:
    """(..., 3, 3) cross-product matrices."""
    matrix = np.zeros((*vector.shape, 3))
    matrix[..., 0, 1], matrix[..., 0, 2] = -vector[..., 2], vector[..., 1]
    matrix[..., 1, 0], matrix[..., 1, 2] = vector[..., 2], -vector[..., 0]
    matrix[..., 2, 0], matrix[..., 2, 1] = -vector[..., 1], vector[..., 0]
    return matrix


def right_jacobian_inverse(tangent: np.ndarray) -> np.ndarray:
    """(..., 7, 7) with `log(exp(x) @ exp(d)) = x + J d + O(d^2)`.

    The Jacobian itself is sum (-ad)^n / (n+1)!; thirty terms reach rounding for any rotation. Of
    small vectors the inverse has a series of its own, with Bernoulli's numbers.
    """
    step = -_algebra_adjoint(tangent)
    if np.square(step).sum(axis=(-1, -2)).max(initial=0.0) < SMALL_ADJOINT**2:
        return _small_inverse(step)
    term = np.broadcast_to(np.eye(7), step.shape)
    jacobian = term.copy()
    for order in range(2, 32):
        term = term @ step / order
        jacobian += term
        if not np.abs(term).max(initial=0.0) > 1e-18:
            break
    return np.linalg.inv(jacobian)


def _small_inverse(step: np.ndarray) -> np.ndarray:
    """(..., 7, 7) ad / (1 - exp(-ad)) of step = -ad; what is left out is (|ad| / 2 pi)^12."""
    square = step @ step
    fourth = square @ square
    inverse = np.eye(7) - step / 2.0 + square / 12.0 - fourth / 720.0
    inverse += fourth @ square / 30240.0 - fourth @ fourth / 1209600.0
    return inverse + fourth @ fourth @ square / 47900160.0


def _algebra_adjoint(tangent: np.ndarray) -> np.ndarray:
    shift, turn, log_scale = tangent[..., :3], tangent[..., 3:6], tangent[..., 6]
    matrix = np.zeros((*tangent.shape, 7))
    matrix[..., :3, :3] = skew(turn) + log_scale[..., None, None] * np.eye(3)
    matrix[..., :3, 3:6] = skew(shift)
    matrix[..., :3, 6] = -shift
    matrix[..., 3:6, 3:6] = skew(turn)
    return matrix


def _mixing(turn: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Integral of exp(u * (skew(turn) + log_scale)) over u in [0, 1]: (..., 3, 3).

    The matrix has eigenvalues log_scale (along the axis) and log_scale +- i*angle (across it), so
    its integral is phi(z) = (e^z - 1) / z on each of them.
    """
    angle = np.linalg.norm(turn, axis=-1)
    axis = turn / np.where(angle > 0, angle, 1.0)[..., None]
    along = _phi(log_scale + 0j).real[..., None, None]
    across = _phi(log_scale + 1j * angle)[..., None, None]
    outer = axis[..., :, None] * axis[..., None, :]
    return along * outer + across.real * (np.eye(3) - outer) + across.imag * skew(axis)


def _phi(value: np.ndarray) -> np.ndarray:
    small = np.abs(value) < 1e-4
    safe = np.where(small, 1.0, value)
    series = 1.0 + value / 2.0 + value**2 / 6.0 + value**3 / 24.0
    return np.where(small, series, np.expm1(safe) / safe)
