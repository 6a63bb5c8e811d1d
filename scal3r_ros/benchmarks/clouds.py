"""Cloud scores: distances both ways after one voxel size for both clouds; the trajectory's
similarity aligns them, and ICP on top of it is reported beside, never instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from scal3r_ros.benchmarks.metrics import NoScore, umeyama
from scal3r_ros.mapping.camera import unproject
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.pipeline.evaluation import score_cloud

ICP_ROUNDS = 30
SAMPLES = 100_000
"""Points that ICP matches at most."""
DEFINITION = (
    "accuracy: mean distance map to truth; completeness: truth to map; cd_mean and cd_sum of the "
    "two; F1 within the threshold. Both clouds thinned to one point a voxel. `pose`: aligned by "
    "the trajectory's Sim(3); `icp`: then point to point, rigid"
)


def thinned(points: np.ndarray, voxel: float) -> np.ndarray:
    """The first point (N, 3) of each voxel of edge `voxel`."""
    if not len(points):
        return points
    cells = np.floor(points / voxel).astype(np.int64)
    _, first = np.unique(cells, axis=0, return_index=True)
    return points[np.sort(first)]


def true_cloud(
    depths: Sequence[np.ndarray], poses: Sequence[np.ndarray], K: np.ndarray, voxel: float
) -> np.ndarray:
    """Points (N, 3) of measured depth (H, W; NaN unknown) from true poses, thinned."""
    parts = []
    for depth, T_world_camera in zip(depths, poses):
        points = unproject(depth[None], K[None], T_world_camera[None])[0]
        parts.append(thinned(points[np.isfinite(points[..., 2])], voxel))
    return thinned(np.concatenate(parts), voxel) if parts else np.zeros((0, 3))


def cloud_scores(
    points: np.ndarray, truth: np.ndarray, voxel: float, tau: float, icp_reach: float
) -> dict[str, Any]:
    """Scores of a map (N, 3), aligned by its trajectory, against the truth (M, 3); metres."""
    truth = thinned(truth, voxel)
    facts: dict[str, Any] = {"definition": DEFINITION, "voxel": voxel, "tau": tau}
    facts["pose"] = _score(thinned(points, voxel), truth, tau)
    moved = icp(points, truth, icp_reach).apply(points)
    facts["icp"] = _score(thinned(moved, voxel), truth, tau) | {"reach": icp_reach}
    return facts


def icp(points: np.ndarray, truth: np.ndarray, reach: float) -> Sim3:
    """Rigid motion that brings points to their nearest true ones within `reach`."""
    tree, motion = cKDTree(truth), Sim3.identity()
    sample = points[:: max(1, len(points) // SAMPLES)].astype(np.float64)
    for _ in range(ICP_ROUNDS):
        moved = motion.apply(sample)
        distance, nearest = tree.query(moved, distance_upper_bound=reach)
        near = np.isfinite(distance)
        if near.sum() < 10:
            return motion
        try:
            S = umeyama(moved[near], truth[nearest[near]])
        except NoScore:
            return motion
        source, target = moved[near].mean(axis=0), truth[nearest[near]].mean(axis=0)
        step = Sim3(np.ones(()), S.rotation, target - S.rotation @ source)
        motion = step @ motion
        if np.abs(step.log()).max() < 1e-6:
            return motion
    return motion


def _score(points: np.ndarray, truth: np.ndarray, tau: float) -> dict[str, float]:
    found = asdict(score_cloud(points, truth, tau))
    found["cd_mean"] = found.pop("chamfer")
    return found | {"cd_sum": found["accuracy"] + found["completeness"]}
