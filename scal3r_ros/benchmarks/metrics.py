"""Trajectory scores, each with one definition that is printed beside its value.

Poses are camera-to-world, OpenCV axes; estimate and truth are paired row by row. The estimate is
brought to the truth by one similarity (Umeyama 1991) on the camera centres; its scale is kept apart
from rotations, so that rotation errors are those of rotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scal3r_ros.mapping.sim3 import Sim3, rotation_log
from scal3r_ros.rigid import inverse

KITTI_LENGTHS = tuple(float(length) for length in range(100, 801, 100))
VBR_PERCENTS = (1, 2, 3, 5, 8, 13, 21, 34, 55)
DEFINITIONS = {
    "ate": "RMSE of camera centres after Umeyama Sim(3), estimate to truth, float64",
    "rpe": (
        "RMSE of the motion from one scored frame to the next, after Sim(3); rotation in degrees"
    ),
    "segments": (
        "KITTI: from every first frame, last is the first frame farther along the true path than "
        "the length; mean over all, estimate scaled by the Sim(3)'s scale; RTE in m per 100 m, RRE "
        "in degrees per 100 m"
    ),
    "auc": (
        "pose AUC at t degrees: all pairs i < j, larger of rotation and direction of translation "
        "(sign ignored), bins of 1 degree, mean of the cumulative histogram"
    ),
}


class NoScore(ValueError):
    """Poses that cannot be scored; the message says why."""


@dataclass(frozen=True)
class Aligned:
    """An estimate on the truth."""

    S_truth_map: Sim3
    poses: np.ndarray
    """(N, 4, 4) estimate after the similarity; rigid."""
    truth: np.ndarray
    """(N, 4, 4)."""


@dataclass(frozen=True)
class Segments:
    """Relative errors over stretches of the path."""

    lengths: tuple[float, ...]
    """Those that exist on this path, truth units."""
    count: int
    rte: float
    """Per 100 units of path."""
    rre: float
    """Degrees per 100 units of path."""


def umeyama(source: np.ndarray, target: np.ndarray) -> Sim3:
    """S_target_source of matched points (N, 3); raises `NoScore` where none is determined."""
    if len(source) < 3:
        raise NoScore(f"{len(source)} poses have a truth, at least 3 are needed")
    mean_source, mean_target = source.mean(axis=0), target.mean(axis=0)
    x, y = source - mean_source, target - mean_target
    variance = float((x**2).sum(axis=1).mean())
    if variance < 1e-18 or float((y**2).sum()) < 1e-18:
        raise NoScore("all poses are at one point, so that nothing can be aligned")
    left, spread, right = np.linalg.svd(y.T @ x / len(x))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = left @ np.diag(sign) @ right
    scale = float((spread * sign).sum() / variance)
    if not scale > 0:
        raise NoScore(
            f"the best scale is {scale:.3g}; the estimate does not move as the truth does"
        )
    return Sim3(np.asarray(scale), rotation, mean_target - scale * rotation @ mean_source)


def align(estimate: np.ndarray, truth: np.ndarray) -> Aligned:
    """Estimate (N, 4, 4) brought to the truth (N, 4, 4); raises `NoScore`."""
    S = umeyama(estimate[:, :3, 3], truth[:, :3, 3])
    return Aligned(S, S.move_pose(estimate), truth)


def ate(aligned: Aligned) -> float:
    """Absolute trajectory error, truth units."""
    apart = aligned.poses[:, :3, 3] - aligned.truth[:, :3, 3]
    return float(np.sqrt((apart**2).sum(axis=1).mean()))


def rpe(aligned: Aligned) -> tuple[float, float]:
    """Relative error from frame to frame: truth units, degrees."""
    error = inverse(_steps(aligned.truth)) @ _steps(aligned.poses)
    turns = np.degrees(np.linalg.norm(rotation_log(error[:, :3, :3]), axis=1))
    shifts = (error[:, :3, 3] ** 2).sum(axis=1)
    return float(np.sqrt(shifts.mean())), float(np.sqrt((turns**2).mean()))


def path_length(poses: np.ndarray) -> float:
    """Of the camera centres of poses (N, 4, 4)."""
    return float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum())


def kitti_segments(aligned: Aligned) -> Segments:
    """KITTI's lengths that exist on this path; of one shorter than 100 m tens of metres."""
    return segments(aligned, _kitti_lengths(path_length(aligned.truth)))


def vbr_segments(aligned: Aligned) -> Segments:
    """Lengths of a share of the whole path, as the VBR benchmark has it."""
    whole = path_length(aligned.truth)
    return segments(aligned, [percent * whole / 100.0 for percent in VBR_PERCENTS])


def segments(aligned: Aligned, lengths: Sequence[float]) -> Segments:
    """Mean relative error over all stretches of the given lengths that exist."""
    steps = np.linalg.norm(np.diff(aligned.truth[:, :3, 3], axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    used, shifts, turns = [], [], []
    for length in lengths:
        last = np.searchsorted(along, along + length, side="right")
        first = np.flatnonzero(last < len(along))
        if not len(first):
            continue
        last = last[first]
        found = inverse(aligned.poses[first]) @ aligned.poses[last]
        true = inverse(aligned.truth[first]) @ aligned.truth[last]
        error = inverse(found) @ true
        used.append(float(length))
        shifts.append(np.linalg.norm(error[:, :3, 3], axis=1) / length)
        turns.append(np.linalg.norm(rotation_log(error[:, :3, :3]), axis=1) / length)
    if not used:
        return Segments((), 0, float("nan"), float("nan"))
    shift, turn = np.concatenate(shifts), np.concatenate(turns)
    rre = 100.0 * float(np.degrees(turn.mean()))
    return Segments(tuple(used), len(shift), 100.0 * float(shift.mean()), rre)


def pose_auc(aligned: Aligned, degrees: int) -> float:
    """Area under the accuracy curve of relative poses up to `degrees`, 0 to 1."""
    i, j = np.triu_indices(len(aligned.truth), 1)
    found = inverse(aligned.poses[i]) @ aligned.poses[j]
    true = inverse(aligned.truth[i]) @ aligned.truth[j]
    turned = rotation_log(np.swapaxes(true[:, :3, :3], 1, 2) @ found[:, :3, :3])
    rotation = np.degrees(np.linalg.norm(turned, axis=1))
    lengths = np.linalg.norm(found[:, :3, 3], axis=1) * np.linalg.norm(true[:, :3, 3], axis=1)
    cosine = np.abs((found[:, :3, 3] * true[:, :3, 3]).sum(axis=1)) / np.maximum(lengths, 1e-15)
    direction = np.degrees(np.arccos(np.clip(cosine, 0.0, 1.0)))
    error = np.maximum(rotation, np.where(lengths > 1e-12, direction, 0.0))
    histogram = np.histogram(error, bins=np.arange(degrees + 1))[0] / max(len(error), 1)
    return float(np.cumsum(histogram).mean())


def _steps(poses: np.ndarray) -> np.ndarray:
    return inverse(poses[:-1]) @ poses[1:]


def _kitti_lengths(whole: float) -> list[float]:
    lengths = [length for length in KITTI_LENGTHS if length <= whole]
    return lengths or [float(length) for length in range(10, 100, 10) if length <= whole]
