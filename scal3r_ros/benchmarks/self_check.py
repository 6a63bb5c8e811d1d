"""Does a sequence mean what its loader thinks: depth seen from one true pose must reappear from
another. World-to-camera poses taken for camera-to-world ones do not survive that."""

from __future__ import annotations

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.benchmarks.sequence import BenchmarkSequence
from scal3r_ros.io.source import BadInput
from scal3r_ros.mapping.camera import project, unproject

PAIRS = 8
SAMPLES = 2000
FEWEST = 30
"""Points that must fall on known depth of the other frame for their agreement to count."""
SAME_DEPTH = 0.05
CLEARER = 1.5
"""How much better the inverse poses must agree before the loader refuses."""


def check_poses(sequence: BenchmarkSequence) -> float | None:
    """Share of depth that reappears where it should in another frame, None without depth; raises
    `BadInput` if it does so only by the inverse of the poses."""
    if sequence.depth is None or sequence.depth_intrinsics is None or len(sequence.truth) < 2:
        return None
    known = sorted(sequence.truth)
    picks = np.linspace(0, len(known) - 2, min(PAIRS, len(known) - 1)).astype(int)
    scores = []
    for pick in np.unique(picks).tolist():
        first, second = known[pick], known[min(pick + 3, len(known) - 1)]
        poses = [sequence.truth[i] for i in (first, second)]
        depths = [sequence.depth(i) for i in (first, second)]
        both = [poses, [rigid.inverse(pose) for pose in poses]]
        scores.append([_agree(depths, p, sequence.depth_intrinsics) for p in both])
    given, inverse = np.array(scores).mean(axis=0)
    if inverse > CLEARER * given and inverse > 0.3:
        raise BadInput(
            f"{sequence.name}: depth agrees between frames for {100 * inverse:.0f} % of the "
            f"pixels if the poses are inverted, for {100 * given:.0f} % as they are; "
            f"world-to-camera poses lie where camera-to-world ones are expected"
        )
    return float(given)


def _agree(depths: list[np.ndarray], poses: list[np.ndarray], K: np.ndarray) -> float:
    step = max(1, int(np.sqrt(depths[0].size / SAMPLES)))
    points = unproject(depths[0][None], K[None], poses[0][None], step, step // 2)[0].reshape(-1, 3)
    points = points[np.isfinite(points[:, 2])]
    pixels, distance = project(points, K, poses[1])
    height, width = depths[1].shape
    with np.errstate(invalid="ignore"):
        inside = (distance > 0) & (pixels >= 0).all(axis=1) & (pixels < (width, height)).all(axis=1)
    column, row = pixels[inside].astype(np.int64).T
    found, expected = depths[1][row, column], distance[inside]
    known = np.isfinite(found)
    if known.sum() < FEWEST:
        return 0.0
    return float((np.abs(found - expected)[known] < SAME_DEPTH * expected[known]).mean())
