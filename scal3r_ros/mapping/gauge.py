"""How a chunk joins the one before when its prediction tells what its poses mean.

A network whose memory keeps all chunks in one frame (`common`) or at one scale (`rigid`) knows more
than the overlap of two chunks can say. The overlap is then no estimate but a check: its quality
gate is asked about the transform that the gauge implies.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scal3r_ros.config import AlignmentConfig
from scal3r_ros.mapping.alignment import (
    LEAST_SIGMA,
    Alignment,
    align,
    judge,
    least_covariance,
)
from scal3r_ros.mapping.overlap import collect_matches, shared_positions
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.similarity_fit import DegenerateOverlap, SimilarityFit, distances
from scal3r_ros.records import ChunkPrediction
from scal3r_ros.rigid import inverse


def join(previous: ChunkPrediction, current: ChunkPrediction, config: AlignmentConfig) -> Alignment:
    """S_previous_current as the gauge of `current` says, or by the overlap if it is `free`.

    A gauge is always accepted; `Alignment.contradiction` tells what the overlap has against it.
    Inside a scale segment the scale is certain, across its start it is as sure as the overlap's
    depths agree.
    """
    if current.gauge == "free" or not shared_positions(previous, current)[0]:
        return align(previous, current, config)
    S = Sim3.identity() if current.gauge == "common" else step_of_first_shared(previous, current)
    try:
        matches = collect_matches(previous, current, config.max_points)
    except DegenerateOverlap as reason:
        return _unchecked(S, current, str(reason))
    fit = SimilarityFit(S, distances(S, matches.source, matches.target), rounds=0)
    judged = judge(previous, current, config, current.gauge, matches, fit)
    sigma = judged.sigma.copy()
    if not current.starts_segment:
        sigma[2] = LEAST_SIGMA[2]
    against = judged.failure and _against(judged, align(previous, current, config))
    return replace(judged, accepted=True, failure="", sigma=sigma, contradiction=against)


def step_of_first_shared(previous: ChunkPrediction, current: ChunkPrediction) -> Sim3:
    """The motion that gives the first frame both chunks have the pose it has in `previous`."""
    before, after = shared_positions(previous, current)
    T_previous_camera = previous.T_chunk_camera[before[0]]
    return Sim3.from_pose(T_previous_camera @ inverse(current.T_chunk_camera[after[0]]))


def _unchecked(S: Sim3, current: ChunkPrediction, reason: str) -> Alignment:
    covariance = least_covariance(current)
    spread = np.sqrt(covariance.diagonal())
    sigma = np.array([spread[0], spread[3], LEAST_SIGMA[2]])
    return Alignment(
        S, True, current.gauge, sigma=sigma, covariance=covariance, contradiction=reason
    )


def _against(judged: Alignment, overlap: Alignment) -> str:
    """What the gate has against a gauge, and what the overlap says instead."""
    if not overlap.accepted:
        return f"{judged.failure}; nor does the overlap agree with itself ({overlap.failure})"
    apart = judged.S_previous_current.inverse() @ overlap.S_previous_current
    turn = np.degrees(np.linalg.norm(apart.log()[3:6]))
    return (
        f"{judged.failure}; by the overlap it would be scaled by {float(apart.scale):.3f} and "
        f"turned by {turn:.1f} degrees"
    )
