"""The similarity between what a tracker has told and what a chunk says of the same images.

Scale from two sources that fail in different places: how far the camera moved, which says nothing
of one that stood still, and the depth of the same corners, which is as good as the depth maps.
"""

from __future__ import annotations

import numpy as np

from scal3r_ros.mapping.pose_fit import similarity_of_poses
from scal3r_ros.mapping.sim3 import Sim3

_NEWEST = 4
"""Images that place and direction are taken from: the tracker has drifted least since."""
_PLACE_SIGMA = 0.004
"""Standard deviation of a camera's place, relative to the typical depth."""
_DEPTH_SIGMA = 0.015
"""Of the scale that depth maps give, however many corners agree."""
_MIN_CORNERS = 12
_MAX_SCALE = 2.0
_MAX_REST = (0.1, 0.1)
"""Largest disagreement that is left: share of the typical depth, radians."""


class Disagreement(ValueError):
    """Tracker and chunk do not tell the same motion."""


def similarity_to_map(
    mapped: np.ndarray, told: np.ndarray, depth_ratios: np.ndarray, typical_depth: float
) -> Sim3:
    """S that brings what was told onto the map: poses `told` (S, 4, 4) of some images, oldest
    first, onto their `mapped` ones. `depth_ratios` (N,): map over told depth of corners.
    `typical_depth` in map units. Raises `Disagreement`."""
    scale = _scale(mapped[:, :3, 3], told[:, :3, 3], depth_ratios, typical_depth)
    if not 1.0 / _MAX_SCALE < scale < _MAX_SCALE:
        raise Disagreement(f"the chunk's scale is {scale:.2f} times the tracker's")
    S = similarity_of_poses(mapped[-_NEWEST:], told[-_NEWEST:], scale)
    again = S.move_pose(told)
    distance = np.linalg.norm(again[:, :3, 3] - mapped[:, :3, 3], axis=1).max() / typical_depth
    turns = np.swapaxes(again[:, :3, :3], 1, 2) @ mapped[:, :3, :3]
    angle = np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)).max()
    if distance > _MAX_REST[0] or angle > _MAX_REST[1]:
        raise Disagreement(
            f"chunk and tracker differ by {distance:.2f} of the depth and {np.degrees(angle):.1f}"
            " degrees over the same images"
        )
    return S


def _scale(
    mapped: np.ndarray, told: np.ndarray, depth_ratios: np.ndarray, typical_depth: float
) -> float:
    """Mean of both sources in logarithms, by their variances."""
    logs, weights = [0.0], [1e-9]
    ways = [np.linalg.norm(centres - centres.mean(axis=0)) for centres in (mapped, told)]
    if min(ways) > 0:
        logs.append(np.log(ways[0] / ways[1]))
        weights.append((ways[0] / (_PLACE_SIGMA * typical_depth)) ** 2)
    if len(depth_ratios) >= _MIN_CORNERS:
        found = np.log(depth_ratios)
        middle = np.median(found)
        spread = 1.5 * np.median(np.abs(found - middle))
        logs.append(middle)
        weights.append(1.0 / (_DEPTH_SIGMA**2 + spread**2 / len(found)))
    return float(np.exp(np.average(logs, weights=weights)))
