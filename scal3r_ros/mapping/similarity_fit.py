"""Similarity between matched points: weighted closed form, and a robust estimator.

`robust_similarity` keeps closed form and weights of VGGT-Long (vggt_long.py) but starts from a
consensus of minimal samples and ends with a kernel that ignores gross outliers instead of bounding
their pull.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scal3r_ros.mapping.sim3 import Sim3

HYPOTHESES = 160
"""Minimal samples tried; with half of the matches wrong, all samples of four miss with
probability 4e-5."""
SAMPLE = 4
SCORED = 1500
"""Matches on which each hypothesis is judged."""
TUKEY = 4.685
"""Cut-off of Tukey's kernel in standard deviations: 95 % efficient on Gaussian noise."""


class DegenerateOverlap(ValueError):
    """The matched points do not determine a similarity."""


@dataclass(frozen=True)
class SimilarityFit:
    """Estimated transform and the residuals (N,) of all matches, in target units."""

    S_target_source: Sim3
    residuals: np.ndarray
    rounds: int
    """Reweighting rounds that were applied."""


def weighted_similarity(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray, scale: float | None = None
) -> Sim3:
    """Closed form for matched points (N, 3): scale is the ratio of weighted RMS radii.

    Computed in the dtype of the points; `scale` fixes it (rigid fit).
    """
    total = weights.sum()
    if not total >= 1e-6:
        raise DegenerateOverlap(f"total weight of the matches is {total}, expected at least 1e-6")
    weights = weights / total
    mean_source, mean_target = weights @ source, weights @ target
    source, target = source - mean_source, target - mean_target
    if scale is None:
        spread_source = np.sqrt(weights @ np.einsum("ni,ni->n", source, source))
        spread_target = np.sqrt(weights @ np.einsum("ni,ni->n", target, target))
        if not (spread_source > 0 and spread_target > 0):
            raise DegenerateOverlap("all matched points coincide; their scale is undefined")
        scale = spread_target / spread_source
    moment = (source * (weights * scale)[:, None]).T @ target
    left, _, right = np.linalg.svd(moment)
    if np.linalg.det(left) * np.linalg.det(right) < 0:
        right[2] = -right[2]
    rotation = right.T @ left.T
    return Sim3(np.asarray(scale), rotation, mean_target - scale * (rotation @ mean_source))


def robust_similarity(
    source: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
    distance: np.ndarray,
    iterations: int = 10,
    scale: float | None = None,
) -> SimilarityFit:
    """Similarity of matched points (N, 3) float64 of which nearly half may be wrong.

    `distance` (N,) is each point's distance from its camera: depth errors grow with it, so
    residuals are judged relative to it.
    """
    if len(source) < SAMPLE:
        raise DegenerateOverlap(f"{len(source)} matched points, expected at least {SAMPLE}")
    best = _consensus(source, target, weights, distance, scale)
    base, done, rounds = weights / distance**2, False, 0
    while rounds < iterations and not done:
        relative = distances(best, source, target) / distance
        sigma = max(1.4826 * float(np.median(relative)), 1e-7)
        kernel = np.clip(1.0 - (relative / (TUKEY * sigma)) ** 2, 0.0, None) ** 2
        fitted = weighted_similarity(source, target, base * kernel / base.sum(), scale)
        done, best, rounds = settled(best, fitted), fitted, rounds + 1
    return SimilarityFit(best, distances(best, source, target), rounds)


def distances(S_target_source: Sim3, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N,) between where points are moved to and where they should be."""
    missed = S_target_source.apply(source)
    missed -= target
    return np.sqrt(np.einsum("ni,ni->n", missed, missed))


def _consensus(source, target, weights, distance, scale) -> Sim3:
    """The hypothesis from a minimal sample that leaves the smallest median relative residual."""
    random = np.random.default_rng(0)
    cumulative = np.cumsum(weights) / weights.sum()
    picks = np.searchsorted(cumulative, random.random((HYPOTHESES, SAMPLE)))
    picks = np.minimum(picks, len(source) - 1)
    judges = np.linspace(0, len(source) - 1, min(SCORED, len(source))).astype(int)
    hypotheses = _minimal_fits(source[picks], target[picks], scale)
    matrices = hypotheses.scale[:, None, None] * hypotheses.rotation
    missed = (matrices.reshape(-1, 3) @ source[judges].T).reshape(-1, 3, len(judges))
    missed += hypotheses.translation[..., None]
    missed -= target[judges].T
    squares = np.einsum("hin,hin->hn", missed, missed) / distance[judges] ** 2
    return hypotheses[int(np.median(squares, axis=1).argmin())]


def _minimal_fits(source: np.ndarray, target: np.ndarray, scale: float | None) -> Sim3:
    """Similarities of H samples of matched points (H, n, 3)."""
    mean_source, mean_target = source.mean(axis=1), target.mean(axis=1)
    source, target = source - mean_source[:, None], target - mean_target[:, None]
    spread = [np.sqrt((side**2).sum(axis=(1, 2))) for side in (source, target)]
    usable = (spread[0] > 0) & (spread[1] > 0)
    if not usable.any():
        raise DegenerateOverlap("all matched points coincide; their scale is undefined")
    ratio = spread[1][usable] / spread[0][usable] if scale is None else np.full(usable.sum(), scale)
    left, _, right = np.linalg.svd(np.swapaxes(source[usable], 1, 2) @ target[usable])
    flip = np.linalg.det(left) * np.linalg.det(right) < 0
    right[flip, 2] *= -1.0
    rotation = np.swapaxes(left @ right, 1, 2)
    turned = (rotation @ mean_source[usable][..., None])[..., 0]
    return Sim3(ratio, rotation, mean_target[usable] - ratio[:, None] * turned)


def settled(before: Sim3, after: Sim3) -> bool:
    """Whether a round of reweighting has changed nothing that counts."""
    moved = abs(after.scale - before.scale)
    moved += np.linalg.norm(after.translation - before.translation)
    cosine = (np.trace(before.rotation.T @ after.rotation) - 1.0) / 2.0
    return bool(moved < 1e-9 and np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))) < 0.1)
