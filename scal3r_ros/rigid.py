"""Rigid motions, SE(3), as (..., 4, 4) float64 matrices `T_a_b`; numpy only.

Inverse, quaternions (x, y, z, w as in geometry_msgs), interpolation, how the uncertainty of a pose
travels over a rigid body, and a buffer of stamped poses that can be asked for any time between.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

LATE_NS = 1_000_000_000
"""A pose whose stamp lies further back than this begins another recording."""


def inverse(T: np.ndarray) -> np.ndarray:
    """Inverse of rigid transforms (..., 4, 4)."""
    back = np.swapaxes(T[..., :3, :3], -1, -2)
    return from_parts(back, -(back @ T[..., :3, 3, None])[..., 0])


def from_parts(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(..., 4, 4) of rotation matrices (..., 3, 3) and translations (..., 3)."""
    T = np.zeros((*np.shape(rotation)[:-2], 4, 4))
    T[..., :3, :3], T[..., :3, 3], T[..., 3, 3] = rotation, translation, 1.0
    return T


def orthonormal(T: np.ndarray) -> np.ndarray:
    """The same transforms (..., 4, 4) with rounding errors of the rotation removed. A pose that is
    guessed from the two before doubles them with every step."""
    left, _, right = np.linalg.svd(T[..., :3, :3])
    return from_parts(left @ right, T[..., :3, 3])


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    """(..., 3, 3) of quaternions (..., 4) of any length but zero."""
    q = np.asarray(quaternion, dtype=np.float64)
    length = np.linalg.norm(q, axis=-1, keepdims=True)
    if not (length > 1e-9).all():
        raise ValueError(f"quaternion {quaternion} has no direction; it must not be zero")
    x, y, z, w = np.moveaxis(q / length, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(..., 4) unit quaternions of rotation matrices (..., 3, 3), w not negative.

    The outer product of the quaternion with itself, times four, is linear in the matrix; its column
    with the largest square is the one that divides by no small number.
    """
    m = np.asarray(rotation, dtype=np.float64)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    xw, yw, zw = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    outer = np.array(
        [
            [1 + xx - yy - zz, xy, xz, xw],
            [xy, 1 - xx + yy - zz, yz, yw],
            [xz, yz, 1 - xx - yy + zz, zw],
            [xw, yw, zw, 1 + xx + yy + zz],
        ]
    )
    columns = np.moveaxis(outer, (0, 1), (-1, -2))  # (..., column, component)
    best = np.diagonal(columns, axis1=-2, axis2=-1).argmax(axis=-1)
    found = np.take_along_axis(columns, best[..., None, None], axis=-2)[..., 0, :]
    found = found / np.linalg.norm(found, axis=-1, keepdims=True)
    return np.where(found[..., 3:] < 0, -found, found)


def slerp(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """(4,) the point at `share` of the shorter great arc between two quaternions (4,)."""
    first = np.asarray(first, dtype=np.float64) / np.linalg.norm(first)
    second = np.asarray(second, dtype=np.float64) / np.linalg.norm(second)
    cosine = float(first @ second)
    if cosine < 0:
        second, cosine = -second, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:  # the sine below would divide zero by zero
        blend = (1 - share) * first + share * second
        return blend / np.linalg.norm(blend)
    weights = np.sin([(1 - share) * angle, share * angle]) / np.sin(angle)
    return weights[0] * first + weights[1] * second


def interpolate(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    """(4, 4) at `share` of the way between two poses: straight line, and the shorter turn at
    constant rate."""
    turns = quaternion(np.stack([before[:3, :3], after[:3, :3]]))
    centre = (1.0 - share) * before[:3, 3] + share * after[:3, 3]
    return from_parts(rotation_matrix(slerp(turns[0], turns[1], share)), centre)


def carried(covariance: np.ndarray, lever: np.ndarray) -> np.ndarray:
    """Covariance (6, 6) of another point of the same rigid body, `lever` (3,) away from the first.

    Position, then rotation vector, both along the axes of the frame that the pose and `lever` are
    in: the point moves by dp + dr x lever, which is the adjoint of the translation by -lever.
    """
    adjoint = np.eye(6)
    x, y, z = lever
    adjoint[:3, 3:] = [[0.0, z, -y], [-z, 0.0, x], [y, -x, 0.0]]
    return adjoint @ covariance @ adjoint.T


def turned(covariance: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Covariance (6, 6) along other axes: `rotation` (3, 3) maps the old ones to the new ones."""
    twice = np.zeros((6, 6))
    twice[:3, :3] = twice[3:, 3:] = rotation
    return twice @ covariance @ twice.T


class PoseBuffer:
    """The newest stamped poses of one source. One thread may add while others ask."""

    def __init__(
        self,
        max_poses: int = 20_000,
        span_ns: int | None = None,
        max_gap_ns: int = 1_000_000_000,
    ) -> None:
        """Keeps the newest `max_poses`, or those of the last `span_ns`, and at most twice as many;
        across a pause longer than `max_gap_ns` nothing is interpolated."""
        self._max_poses, self._span_ns, self._max_gap_ns = max_poses, span_ns, max_gap_ns
        self._poses: list[tuple[int, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._poses)

    def add(self, stamp_ns: int, T: np.ndarray) -> None:
        """Append the newest pose (4, 4). One that comes late is left out; a stamp far back starts
        anew, as when a recording is played again."""
        poses = self._poses
        if poses and stamp_ns <= poses[-1][0]:
            if poses[-1][0] - stamp_ns <= LATE_NS:
                return
            poses = []
        # Whoever asks holds a list that is only appended to: shortened, it is another one.
        if len(poses) >= 2 * self._max_poses:
            poses = poses[-self._max_poses :]
        elif self._span_ns and poses and stamp_ns - poses[0][0] > 2 * self._span_ns:
            poses = [pose for pose in poses if pose[0] >= stamp_ns - self._span_ns]
        poses.append((stamp_ns, np.array(T, dtype=np.float64)))
        self._poses = poses

    def clear(self) -> None:
        """Forget all poses."""
        self._poses = []

    def around(self, stamp_ns: int) -> tuple[tuple[int, np.ndarray], ...] | None:
        """The stamped poses that `at` would use: one, or two that lie around the time."""
        poses = self._poses
        place = bisect_left(poses, stamp_ns, key=lambda pose: pose[0])
        if place < len(poses) and poses[place][0] == stamp_ns:
            return (poses[place],)
        if place == 0 or place == len(poses):
            return None
        before, after = poses[place - 1], poses[place]
        return None if after[0] - before[0] > self._max_gap_ns else (before, after)

    def at(self, stamp_ns: int) -> np.ndarray | None:
        """Interpolated pose (4, 4); None outside of what is known and across a long pause."""
        found = self.around(stamp_ns)
        if found is None:
            return None
        (start_ns, before), (end_ns, after) = found[0], found[-1]
        if start_ns == end_ns:
            return before
        return interpolate(before, after, (stamp_ns - start_ns) / (end_ns - start_ns))
