"""Stand-in for tf_transformations: quaternions x, y, z, w as in geometry_msgs, 4x4 matrices."""

from __future__ import annotations

import numpy as np

from scal3r_ros import rigid


def quaternion_matrix(quaternion) -> np.ndarray:
    """(4, 4) rotation of a quaternion of any length but zero; the identity for zero."""
    matrix = np.eye(4)
    if np.square(quaternion).sum() > np.finfo(float).eps:
        matrix[:3, :3] = rigid.rotation_matrix(quaternion)
    return matrix


def quaternion_from_matrix(matrix) -> np.ndarray:
    """(4,) unit quaternion of the rotation block of a (3, 3) or (4, 4) matrix, w not negative."""
    return rigid.quaternion(np.asarray(matrix, float)[:3, :3])


def quaternion_multiply(first, second) -> np.ndarray:
    """(4,) product: apply `second`, then `first`."""
    x0, y0, z0, w0 = second
    x1, y1, z1, w1 = first
    return np.array(
        [
            x1 * w0 + y1 * z0 - z1 * y0 + w1 * x0,
            -x1 * z0 + y1 * w0 + z1 * x0 + w1 * y0,
            x1 * y0 - y1 * x0 + z1 * w0 + w1 * z0,
            -x1 * x0 - y1 * y0 - z1 * z0 + w1 * w0,
        ]
    )


def quaternion_slerp(quat0, quat1, fraction: float) -> np.ndarray:
    """(4,) the point at `fraction` of the shorter great arc from `quat0` to `quat1`."""
    return rigid.slerp(quat0, quat1, fraction)
