"""How good poses were when they came: of every image between chunks, against ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.tracked import TrackedImage, read_tracked
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.similarity_fit import weighted_similarity

_SECOND = 1.0


@dataclass(frozen=True)
class LiveScore:
    """Lengths are in ground truth units, after the best similarity (or rigid) alignment."""

    images: int
    """In the file: it begins when the first chunk is mapped."""
    share: float
    """Of them that got a pose."""
    latency_median: float
    """Seconds from the arrival of an image to its pose."""
    latency_p95: float
    path_length: float
    """Of the ground truth over the whole recording."""
    ate_rmse: float
    ate_percent: float
    """Of the path."""
    rpe_translation: float
    """RMSE of the motion over a second."""
    rpe_rotation_deg: float
    largest_step: tuple[float, float]
    """Largest error of the motion from one image to the next: length, degrees."""


def score_live(
    tracked: str | Path,
    groundtruth: str | Path,
    max_difference: float = 0.01,
    fixed_scale: bool = False,
) -> LiveScore:
    """Score a file of `write_tracked`; `max_difference` (s) joins stamps. Raises `BadInput`."""
    images, (stamps, truth) = read_tracked(tracked), read_trajectory(groundtruth)
    order = np.argsort(stamps)
    return score_images(images, stamps[order], truth[order], max_difference, fixed_scale)


def score_images(
    images: Sequence[TrackedImage],
    stamps_ns: np.ndarray,
    truth: np.ndarray,
    max_difference: float = 0.01,
    fixed_scale: bool = False,
) -> LiveScore:
    """The same of records and true poses (N, 4, 4) at rising `stamps_ns` (N,)."""
    told = [image for image in images if image.T_map_camera is not None]
    mine, theirs, times = _joined(told, stamps_ns, truth, int(max_difference * 1e9))
    if len(mine) < 3:
        raise BadInput(f"only {len(mine)} live poses have ground truth; three are needed")
    S = _alignment(mine[:, :3, 3], theirs[:, :3, 3], fixed_scale)
    aligned = S.move_pose(mine)
    error = np.linalg.norm(aligned[:, :3, 3] - theirs[:, :3, 3], axis=1)
    length = float(np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum())
    late = [image.seconds for image in told if image.seconds is not None]
    ate = float(np.sqrt(np.square(error).mean()))
    second, turn = _motion_errors(aligned, theirs, times, _SECOND)
    step, step_turn = _motion_errors(aligned, theirs, times, 0.0)
    return LiveScore(
        images=len(images),
        share=len(told) / len(images),
        latency_median=float(np.median(late)),
        latency_p95=float(np.percentile(late, 95)),
        path_length=length,
        ate_rmse=ate,
        ate_percent=100.0 * ate / max(length, 1e-12),
        rpe_translation=float(np.sqrt(np.square(second).mean())) if len(second) else float("nan"),
        rpe_rotation_deg=float(np.sqrt(np.square(turn).mean())) if len(turn) else float("nan"),
        largest_step=(float(step.max(initial=0.0)), float(step_turn.max(initial=0.0))),
    )


def _joined(
    told: Sequence[TrackedImage], stamps_ns: np.ndarray, truth: np.ndarray, reach_ns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Told poses, the true ones nearest in time, and stamps of those that have one."""
    times = np.array([image.stamp_ns for image in told], np.int64)
    poses = np.array([image.T_map_camera for image in told]).reshape(-1, 4, 4)
    right = np.clip(np.searchsorted(stamps_ns, times), 1, max(len(stamps_ns) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(stamps_ns) - 1)
    nearer = np.abs(stamps_ns[left] - times) <= np.abs(stamps_ns[right] - times)
    nearest = np.where(nearer, left, right)
    joined = np.abs(stamps_ns[nearest] - times) <= reach_ns
    return poses[joined], truth[nearest[joined]], times[joined]


def _alignment(mine: np.ndarray, theirs: np.ndarray, fixed_scale: bool) -> Sim3:
    """The similarity of the smallest squared error, as evo and the benchmarks have it; with
    `fixed_scale` the rigid one."""
    weights = np.ones(len(mine))
    if fixed_scale:
        return weighted_similarity(mine, theirs, weights, 1.0)
    rotation = weighted_similarity(mine, theirs, weights).rotation
    source, target = mine - mine.mean(axis=0), theirs - theirs.mean(axis=0)
    scale = float((target * (source @ rotation.T)).sum() / np.square(source).sum())
    return weighted_similarity(mine, theirs, weights, scale)


def _motion_errors(
    mine: np.ndarray, truth: np.ndarray, times_ns: np.ndarray, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the motion over `seconds`, or with 0 to the next image: lengths, degrees."""
    later = np.searchsorted(times_ns, times_ns + int(seconds * 1e9))
    later = np.maximum(later, np.arange(len(times_ns)) + 1)
    known = later < len(times_ns)
    gap = np.zeros(len(times_ns), np.int64)
    gap[known] = times_ns[later[known]] - times_ns[known]
    # Across a pause without poses the motion is another one.
    rows = np.flatnonzero(known & (gap < (seconds + 0.2) * 1e9))
    moves = [rigid.inverse(T[rows]) @ T[later[rows]] for T in (mine, truth)]
    rest = rigid.inverse(moves[1]) @ moves[0]
    cosine = (np.trace(rest[:, :3, :3], axis1=1, axis2=2) - 1) / 2
    return (
        np.linalg.norm(rest[:, :3, 3], axis=1),
        np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))),
    )
