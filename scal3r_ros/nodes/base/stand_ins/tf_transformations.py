"""Stand-in for tf_transformations: quaternions x, y, z, w as in geometry_msgs, 4x4 matrices."""

from __future__ import annotations

import numpy as np


def quaternion_matrix(quaternion) -> np.ndarray:
    """(4, 4) rotation of a quaternion of any length but zero; the identity for zero."""
    x, y, z, w = np.asarray(quaternion, float)
    norm = x * x + y * y + z * z + w * w
    matrix = np.eye(4)
    if norm < np.finfo(float).eps:
        return matrix
    s = 2.0 / norm
    matrix[:3, :3] = [
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
    ]
    return matrix


def quaternion_from_matrix(matrix) -> np.ndarray:
    """(4,) unit quaternion of the rotation block of a (3, 3) or (4, 4) matrix, w not negative.

    The eigenvector of Bar-Itzhack's symmetric matrix: the nearest rotation even under rounding.
    """
    r = np.asarray(matrix, float)[:3, :3]
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    quaternion = np.linalg.eigh(k / 3.0)[1][:, -1]
    return -quaternion if quaternion[3] < 0 else quaternion


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
    first = np.asarray(quat0, float) / np.linalg.norm(quat0)
    second = np.asarray(quat1, float) / np.linalg.norm(quat1)
    cosine = float(first @ second)
    if cosine < 0:
        second, cosine = -second, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:
        blend = (1 - fraction) * first + fraction * second
        return blend / np.linalg.norm(blend)
    weights = np.sin([(1 - fraction) * angle, fraction * angle]) / np.sin(angle)
    return weights[0] * first + weights[1] * second
