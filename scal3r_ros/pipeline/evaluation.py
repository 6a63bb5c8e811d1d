"""How far a result is from ground truth: trajectories by the library evo, clouds by distance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from scal3r_ros import rigid
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.similarity_fit import DegenerateOverlap, weighted_similarity

log = logging.getLogger(__name__)
KITTI_LENGTHS = tuple(range(100, 801, 100))
"""Path lengths over which KITTI measures drift, metres."""


@dataclass(frozen=True)
class Drift:
    """Relative error over all stretches of one length, averaged over the lengths."""

    lengths: tuple[float, ...]
    """Ground truth units. KITTI's own if the path is long enough for one, else eighths of it."""
    translation_percent: float
    rotation_deg_per_unit: float


@dataclass(frozen=True)
class TrajectoryScore:
    """A trajectory against ground truth after the best similarity (or rigid) alignment."""

    frames: int
    """Poses with a ground truth pose at their time."""
    path_length: float
    ate_rmse: float
    """Absolute trajectory error, ground truth units."""
    ate_percent: float
    """The same as a share of the path."""
    rpe_translation: float
    """RMSE of the motion from one pose to the next, ground truth units."""
    rpe_rotation_deg: float
    drift: Drift
    S_truth_map: Sim3
    """The alignment that was applied."""


@dataclass(frozen=True)
class CloudScore:
    """A cloud against ground truth, in ground truth units."""

    accuracy: float
    """Mean distance from the map's points to the truth."""
    completeness: float
    """Mean distance from the truth to the map's points."""
    chamfer: float
    """Mean of the two."""
    precision: float
    """Share of the map's points within the threshold."""
    recall: float
    f1: float
    threshold: float


@dataclass(frozen=True)
class Jump:
    """How far corrections have moved what was published, after the best similarity of the two."""

    frames: int
    rms: float
    """Ground truth units."""
    largest: float


def jump(live: str | Path, final: str | Path, scale: float) -> Jump:
    """Between two TUM files of the same run; `scale`: ground truth units per unit of `final`.

    Raises `BadInput` if they share fewer than three stamps or do not move.
    """
    tracks = [
        dict(zip(stamps.tolist(), poses)) for stamps, poses in map(read_trajectory, (live, final))
    ]
    shared = sorted(tracks[0].keys() & tracks[1].keys())
    if len(shared) < 3:
        raise BadInput(f"{live} and {final} share {len(shared)} stamps; are they of one run?")
    then, now = (np.array([track[s][:3, 3] for s in shared]) for track in tracks)
    try:
        S_now_then = weighted_similarity(then, now, np.ones(len(shared)))
    except DegenerateOverlap as error:
        raise BadInput(f"{live} cannot be compared with {final}: {error}") from error
    apart = scale * np.linalg.norm(S_now_then.apply(then) - now, axis=1)
    return Jump(len(shared), float(np.sqrt((apart**2).mean())), float(apart.max()))


def score_trajectory(
    trajectory: str | Path,
    groundtruth: str | Path,
    max_difference: float = 0.01,
    fixed_scale: bool = False,
) -> tuple[TrajectoryScore, Any, Any]:
    """Score a TUM file against another; also returns both, associated and aligned, for plots.

    `max_difference` (s) joins poses by time; with `fixed_scale` the scale must be right by itself.
    Raises `BadInput`.
    """
    from evo.core import sync
    from evo.core.geometry import GeometryException

    estimate, reference = (_load(path) for path in (trajectory, groundtruth))
    apart = _least_difference(estimate.timestamps, reference.timestamps)
    try:
        reference, estimate = sync.associate_trajectories(
            reference, estimate, max_diff=max_difference
        )
    except sync.SyncException as error:
        raise BadInput(
            f"no pose of {trajectory} has one of {groundtruth} within {max_difference:g} s, the "
            f"nearest are {apart:.3g} s apart; is it the same recording? --max-difference allows "
            f"more"
        ) from error
    if estimate.num_poses < 3:
        raise BadInput(f"only {estimate.num_poses} poses of {trajectory} have ground truth")
    length = float(reference.path_length)
    if np.ptp(reference.positions_xyz, axis=0).max() < 1e-9:
        raise BadInput(f"{groundtruth} does not move, so that nothing can be aligned with it")
    _suspect_scalar_first(reference, estimate, groundtruth)
    try:
        rotation, translation, scale = estimate.align(reference, correct_scale=not fixed_scale)
    except GeometryException as error:
        raise BadInput(f"{trajectory} cannot be aligned with {groundtruth}: {error}") from error
    ate = _error("APE", "translation_part", reference, estimate)
    score = TrajectoryScore(
        frames=int(estimate.num_poses),
        path_length=length,
        ate_rmse=ate,
        ate_percent=100 * ate / max(length, 1e-12),
        rpe_translation=_error("RPE", "translation_part", reference, estimate),
        rpe_rotation_deg=_error("RPE", "rotation_angle_deg", reference, estimate),
        drift=_drift(reference, estimate, length),
        S_truth_map=Sim3(np.array(scale), rotation, translation),
    )
    return score, reference, estimate


def _least_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Smallest difference of two rising lists of times, s."""
    after = np.searchsorted(theirs, ours)
    sides = (np.clip(after - step, 0, len(theirs) - 1) for step in (0, 1))
    return float(min(np.abs(ours - theirs[side]).min() for side in sides))


def _suspect_scalar_first(reference: Any, estimate: Any, name: str | Path) -> None:
    """Warn if the truth would turn as the estimate does, had it quaternions `qw qx qy qz`."""

    def steps(matrices: np.ndarray) -> np.ndarray:
        return matrices[:-1].transpose(0, 2, 1) @ matrices[1:]

    def apart(matrices: np.ndarray) -> float:
        traces = np.einsum("nij,nij->n", steps(matrices), steps(ours))
        return float(np.arccos(np.clip((traces - 1) / 2, -1, 1)).mean())

    ours, theirs = (np.array([T[:3, :3] for T in p.poses_se3]) for p in (estimate, reference))
    swapped = np.array([rigid.rotation_matrix(np.roll(rigid.quaternion(R), -1)) for R in theirs])
    if apart(theirs) > np.radians(0.5) and apart(swapped) < 0.5 * apart(theirs):
        log.warning(
            "%s turns like the trajectory if its quaternions are `qw qx qy qz`; this program reads "
            "`qx qy qz qw`, so the errors of rotation below are wrong until its columns are moved",
            name,
        )


def score_cloud(points: np.ndarray, truth: np.ndarray, threshold: float) -> CloudScore:
    """Chamfer distance and F1 of points (N, 3) against truth (M, 3)."""
    for name, cloud in (("map", points), ("ground truth", truth)):
        if not len(cloud):
            raise BadInput(f"the {name} cloud has no points")
    to_truth = cKDTree(truth).query(points)[0]
    to_points = cKDTree(points).query(truth)[0]
    precision, recall = (float((d <= threshold).mean()) for d in (to_truth, to_points))
    accuracy, completeness = float(to_truth.mean()), float(to_points.mean())
    both = precision + recall
    return CloudScore(
        accuracy=accuracy,
        completeness=completeness,
        chamfer=(accuracy + completeness) / 2,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / both if both else 0.0,
        threshold=threshold,
    )


def draw_comparison(
    path: str | Path, reference: Any, estimate: Any, score: TrajectoryScore
) -> None:
    """Both trajectories, coloured by error, in the plane in which the truth extends most."""
    import io

    from evo.tools import plot
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from scal3r_ros.files import write_bytes

    spread = np.ptp(reference.positions_xyz, axis=0)
    plane = "".join("xyz"[i] for i in sorted(np.argsort(-spread)[:2]))
    figure = Figure(figsize=(9, 7), dpi=110)
    FigureCanvasAgg(figure)
    axes = plot.prepare_axis(figure, plot.PlotMode[plane])
    errors = np.linalg.norm(reference.positions_xyz - estimate.positions_xyz, axis=1)
    plot.traj(axes, plot.PlotMode[plane], reference, "--", "gray", "ground truth")
    plot.traj_colormap(
        axes, estimate, errors, plot.PlotMode[plane], 0.0, float(errors.max()), fig=figure
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(f"ATE {score.ate_rmse:.4g} ({score.ate_percent:.3g} % of the path)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _load(path: str | Path) -> Any:
    from evo.core.trajectory import PoseTrajectory3D

    stamps, poses = read_trajectory(path)
    order = np.argsort(stamps, kind="stable")
    if (np.diff(stamps[order]) == 0).any():
        raise BadInput(f"{path} has two poses with one time stamp")
    return PoseTrajectory3D(poses_se3=list(poses[order]), timestamps=stamps[order] * 1e-9)


def _error(kind: str, relation: str, reference: Any, estimate: Any, **options: Any) -> float:
    """RMSE of one of evo's metrics."""
    return float(np.sqrt(np.mean(_errors(kind, relation, reference, estimate, **options) ** 2)))


def _errors(kind: str, relation: str, reference: Any, estimate: Any, **options: Any) -> np.ndarray:
    from evo.core import metrics

    metric = getattr(metrics, kind)(metrics.PoseRelation[relation], **options)
    metric.process_data((reference, estimate))
    return np.asarray(metric.error)


def _drift(reference: Any, estimate: Any, path_length: float) -> Drift:
    from evo.core.filters import FilterException
    from evo.core.metrics import MetricsException, Unit

    lengths: Sequence[float] = [float(n) for n in KITTI_LENGTHS if n <= path_length]
    lengths = lengths or [path_length * part / 8 for part in range(1, 7)]
    used, translation, rotation = [], [], []
    for length in lengths:
        stretch = {"delta": length, "delta_unit": Unit.meters, "all_pairs": True}
        try:
            moved = _errors("RPE", "translation_part", reference, estimate, **stretch)
            turned = _errors("RPE", "rotation_angle_deg", reference, estimate, **stretch)
        except (FilterException, MetricsException):
            continue  # no two poses are this far apart along the path
        used.append(length)
        translation.append(100 * moved.mean() / length)
        rotation.append(turned.mean() / length)
    if not used:
        return Drift((), float("nan"), float("nan"))
    return Drift(tuple(used), float(np.mean(translation)), float(np.mean(rotation)))
