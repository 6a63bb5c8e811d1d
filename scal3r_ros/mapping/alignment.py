"""Sim(3) between neighbouring chunks from the frames they share, its quality gate and its
fallbacks.

A failed gate is never hidden: every attempt is kept in `Alignment.attempts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from scal3r_ros.config import AlignmentConfig
from scal3r_ros.mapping import vggt_long
from scal3r_ros.mapping.camera import valid_pixels
from scal3r_ros.mapping.overlap import Matches, collect_matches, shared_positions
from scal3r_ros.mapping.pose_fit import similarity_of_poses
from scal3r_ros.mapping.sim3 import Sim3, rotation_log
from scal3r_ros.mapping.similarity_fit import (
    DegenerateOverlap,
    SimilarityFit,
    distances,
    robust_similarity,
)
from scal3r_ros.records import ChunkPrediction

MAX_DISAGREEMENT = np.radians(15.0)
"""Largest accepted median rotation between the two chunks' poses of the same frames."""
LEAST_SIGMA = np.array([0.004, 0.002, 0.004])
"""Smallest believed standard deviation of an alignment: translation (of the scene distance),
rotation (rad), log-scale."""


@dataclass(frozen=True)
class Alignment:
    """Where the current chunk lies in the previous one, and how well that is known."""

    S_previous_current: Sim3
    accepted: bool
    method: str
    """`poses`, `depth`, `points`, `rigid` or `odometry`; the gauge `common` or `rigid` that a
    prediction told; `none` if nothing was accepted."""
    failure: str = ""
    """Why the last attempt was refused, e.g. `few_inliers`; empty when accepted."""
    attempts: tuple[str, ...] = ()
    """One `method: failure` for every refused attempt."""
    contradiction: str = ""
    """What the overlap has against a gauge that the prediction told; empty if nothing."""
    inliers: float = 0.0
    """Share of matches whose residual is below delta."""
    residual: float = float("inf")
    """Weighted RMS residual of the inliers relative to the scene distance."""
    matches: int = 0
    sigma: np.ndarray = field(default_factory=lambda: np.full(3, np.inf))
    """(3,) standard deviation of translation (current chunk's units), rotation (rad), log-scale."""
    covariance: np.ndarray = field(default_factory=lambda: np.diag(np.full(6, np.inf)))
    """(6, 6) disagreement of the two chunks on a frame's pose: translation in the current chunk's
    units, rotation vector."""

    @property
    def weak(self) -> bool:
        """True if the constraint does not come from the chunks' own geometry."""
        return self.method == "odometry"


def align(
    previous: ChunkPrediction, current: ChunkPrediction, config: AlignmentConfig
) -> Alignment:
    """Align by depth; on failure by the point head, then rigidly with the ratio of the depths.

    With the estimator `poses`, the poses of the shared frames come before all of these.
    """
    if config.method == "vggt_long":
        return _as_vggt_long(previous, current, config)
    attempts: list[str] = []
    refused = Alignment(Sim3.identity(), False, "none")
    for method, estimate in _methods(previous, current, config):
        result = _attempt(previous, current, config, method, estimate)
        if result.accepted:
            return replace(result, attempts=tuple(attempts))
        attempts.append(f"{method}: {result.failure}")
        refused = refused if refused.failure else result
    return replace(refused, attempts=tuple(attempts), method="none")


def least_covariance(prediction: ChunkPrediction) -> np.ndarray:
    """(6, 6) smallest believed covariance of a pose within its chunk, where no overlap tells
    more."""
    valid = valid_pixels(prediction.depth, prediction.confidence)
    typical = float(np.median(prediction.depth[valid])) if valid.any() else 1.0
    return np.diag(np.square([LEAST_SIGMA[0] * typical] * 3 + [LEAST_SIGMA[1]] * 3))


def fit_robust(matches: Matches, config: AlignmentConfig) -> SimilarityFit:
    """Outlier-proof similarity in float64; residuals relative to each point's distance."""
    return robust_similarity(*_robust_input(matches), iterations=2 * config.iterations)


def fit_rigid(matches: Matches, config: AlignmentConfig) -> SimilarityFit:
    """Rigid fit; the scale is the median ratio of the two chunks' depths."""
    scale = float(np.median(matches.depth_target / matches.depth_source))
    return robust_similarity(*_robust_input(matches), 2 * config.iterations, scale)


def fit_poses(
    previous: ChunkPrediction, current: ChunkPrediction, matches: Matches
) -> SimilarityFit:
    """Poses of the shared frames, which weigh alike; the scale is the ratio of depths, one median
    per frame."""
    before, after = shared_positions(previous, current)
    scale = float(np.exp(_log_scales(matches).mean()))
    S = similarity_of_poses(previous.T_chunk_camera[before], current.T_chunk_camera[after], scale)
    return SimilarityFit(S, distances(S, matches.source, matches.target), rounds=0)


def _methods(previous, current, config) -> Sequence[tuple[str, Callable]]:
    methods: list[tuple[str, Callable]] = []
    if config.estimator == "poses":
        methods.append(("poses", lambda matches, _: fit_poses(previous, current, matches)))
    methods.append(("depth", fit_robust))
    if previous.points is not None and current.points is not None:
        methods.append(("points", fit_robust))
    return [*methods, ("rigid", fit_rigid)]


def _attempt(previous, current, config, method, estimate) -> Alignment:
    try:
        use_points = method == "points"
        matches = collect_matches(previous, current, config.max_points, use_points)
        fit = estimate(matches, config)
    except DegenerateOverlap as error:
        return Alignment(Sim3.identity(), False, method, failure=str(error))
    return judge(previous, current, config, method, matches, fit)


def judge(previous, current, config, method, matches: Matches, fit: SimilarityFit) -> Alignment:
    """Quality gate of a fit, and its uncertainty from what the two chunks disagree about."""
    delta = config.huber_delta * float(np.median(matches.depth_target))
    result = _described(previous, current, method, matches, fit, delta)
    disagreement = _pose_disagreement(previous, current, fit.S_target_source)
    failure = _failure(result, disagreement, config)
    return replace(result, accepted=not failure, failure=failure)


def _as_vggt_long(previous, current, config) -> Alignment:
    """Every pixel of the shared frames in float32, Huber's threshold in chunk units, no gate."""
    try:
        matches = collect_matches(previous, current)
        fit = vggt_long.sim3_wet(
            matches.source.astype(np.float32),
            matches.target.astype(np.float32),
            matches.confidence_source.astype(np.float32),
            matches.confidence_target.astype(np.float32),
            delta=config.huber_delta,
            iterations=config.iterations,
        )
    except DegenerateOverlap as error:
        failure = str(error)
        return Alignment(Sim3.identity(), False, "none", failure, (f"depth: {failure}",))
    return _described(previous, current, "depth", matches, fit, config.huber_delta)


def _described(
    previous, current, method, matches: Matches, fit: SimilarityFit, delta: float
) -> Alignment:
    """A fit and its uncertainty; matches closer than `delta` (previous chunk's units) are in."""
    typical = float(np.median(matches.depth_target))
    inside = fit.residuals <= delta
    weights = np.sqrt(matches.confidence_source * matches.confidence_target)[inside]
    squares = fit.residuals[inside] ** 2
    rms = float(np.sqrt((weights * squares).sum() / weights.sum())) if inside.any() else np.inf
    S = fit.S_target_source
    disagreement = _pose_disagreement(previous, current, S)
    return Alignment(
        S,
        accepted=True,
        method=method,
        inliers=float(inside.mean()),
        residual=rms / typical,
        matches=len(fit.residuals),
        sigma=_sigma(matches, S, disagreement, typical),
        covariance=_covariance(disagreement, S, typical),
    )


def _failure(result: Alignment, disagreement: np.ndarray, config: AlignmentConfig) -> str:
    if result.inliers < config.min_inliers:
        return "few_inliers"
    if result.residual > config.max_residual:
        return "large_residual"
    if abs(np.log(result.S_previous_current.scale)) > config.max_log_scale:
        return "scale_jump"
    if np.median(np.linalg.norm(disagreement[:, 3:], axis=1)) > MAX_DISAGREEMENT:
        return "rotation_disagreement"
    return ""


def _robust_input(matches: Matches) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    weights = np.sqrt(matches.confidence_source * matches.confidence_target, dtype=np.float64)
    distance = np.maximum(matches.depth_target, 0.2 * np.median(matches.depth_target))
    return (
        matches.source.astype(np.float64),
        matches.target.astype(np.float64),
        weights,
        distance.astype(np.float64),
    )


def _pose_disagreement(previous, current, S_previous_current: Sim3) -> np.ndarray:
    """(S, 6) for each shared frame: translation (previous units) and rotation between its two
    poses."""
    before, after = shared_positions(previous, current)
    expected = previous.T_chunk_camera[before]
    moved = S_previous_current.move_pose(current.T_chunk_camera[after])
    turn = rotation_log(np.swapaxes(expected[:, :3, :3], 1, 2) @ moved[:, :3, :3])
    return np.concatenate([moved[:, :3, 3] - expected[:, :3, 3], turn], axis=1)


def _covariance(disagreement: np.ndarray, S: Sim3, typical: float) -> np.ndarray:
    in_current = disagreement.copy()
    in_current[:, :3] = in_current[:, :3] @ S.rotation / S.scale
    spread = in_current.T @ in_current / len(in_current)
    floor = [LEAST_SIGMA[0] * typical / S.scale] * 3 + [LEAST_SIGMA[1]] * 3
    return spread + np.diag(np.square(floor))


def _log_scales(matches: Matches) -> np.ndarray:
    """Log ratio of the two chunks' depths, a median for each shared frame."""
    ratio = np.log(matches.depth_target / matches.depth_source)
    return np.array([np.median(ratio[matches.frame == f]) for f in np.unique(matches.frame)])


def _sigma(matches: Matches, S: Sim3, disagreement: np.ndarray, typical: float) -> np.ndarray:
    """Standard deviations of the alignment itself, never below LEAST_SIGMA."""
    of_frame = _log_scales(matches) - np.log(S.scale)
    measured = np.array(
        [
            np.sqrt((disagreement[:, :3] ** 2).mean()) / S.scale,
            np.sqrt((disagreement[:, 3:] ** 2).mean()),
            np.sqrt((of_frame**2).mean()),
        ]
    )
    floor = LEAST_SIGMA * np.array([typical / S.scale, 1.0, 1.0])
    return np.sqrt(measured**2 + floor**2)
