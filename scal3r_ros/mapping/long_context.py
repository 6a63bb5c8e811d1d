"""Edges over several chunks from one window of frames that were picked evenly over all of them.

A window errs from its first frame to its last as a chunk does, but spans many chunks, so that it
tells two distant chunks' relative place with less drift than the chain between them (AMB3R-SLAM
2026, "long context"). It is aligned with every chunk on the frames they share; two chunks that both
fit become an edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scal3r_ros.mapping.alignment import LEAST_SIGMA, Alignment
from scal3r_ros.mapping.camera import project, unproject, valid_pixels
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import ChunkPrediction, Event

LEAST_APART = 3
"""Nearer chunks are tied better by the frames that they share themselves."""
LEAST_VIEWS = 3
"""Views that a chunk and a window must share."""
SAMPLES = 300
"""Pixels of a view that are looked for in the next one."""
SAME_DEPTH = 0.1
"""Relative difference of depth up to which two views see the same point."""
SEEN = 0.05
"""Share of a view's pixels that another view must see to have something in common with it."""
BASELINE_SHARE = 0.25
"""Of the median baseline: shorter edges are believed no better than an edge of that length."""


@dataclass(frozen=True)
class ContextWindow:
    """Which frames are reconstructed together once more."""

    chunks: tuple[int, ...]
    """Indices of consecutive chunks of the map, oldest first."""
    frame_ids: tuple[int, ...]
    owners: tuple[int, ...]
    """For each frame a chunk that has recorded it."""

    def event(self, reason: str, chunk_index: int) -> Event:
        """What a user is told of it; `reason` says why it ties nothing, if it does not."""
        text = f"window over chunks {self.chunks[0]} to {self.chunks[-1]} {reason}"
        return Event("context_refused" if reason else "context_tied", text.strip(), chunk_index)


@dataclass(frozen=True)
class ContextEdge:
    """Where chunk b lies in chunk a according to a window."""

    a: int
    b: int
    S_a_b: Sim3
    sigma: np.ndarray
    """(3,) standard deviations of translation (chunk b's units), rotation, log-scale."""


def pick_window(frames: Mapping[int, Sequence[int]], views: int) -> ContextWindow:
    """Pick `views` frames evenly from all that the chunks (by index, oldest first) have."""
    owner = {frame: chunk for chunk, ids in frames.items() for frame in ids}
    everything = sorted(owner)
    places = np.linspace(0, len(everything) - 1, min(views, len(everything))).round().astype(int)
    picked = tuple(everything[place] for place in np.unique(places))
    return ContextWindow(tuple(frames), picked, tuple(owner[frame] for frame in picked))


def confidence_ratio(window: ChunkPrediction, recorded: ChunkPrediction) -> float:
    """Median confidence of the window over that of a chunk, on the frames of the chunk given."""
    medians = []
    for prediction in (window, recorded):
        valid = valid_pixels(prediction.depth, prediction.confidence)
        medians.append(np.median(prediction.confidence[valid]) if valid.any() else 0.0)
    return float(medians[0] / max(medians[1], 1e-12))


def linked_views(window: ChunkPrediction) -> np.ndarray:
    """(V - 1,) share of each view's pixels that the next view sees at the depth they should have
    there: what ties the reconstruction together."""
    return np.array([_seen_by_next(window, i) for i in range(len(window.frame_ids) - 1)])


def context_edges(
    window: ContextWindow,
    links: np.ndarray,
    fits: Mapping[int, Alignment],
    shared: Mapping[int, Sequence[int]],
) -> list[ContextEdge]:
    """Edges between all chunks at least LEAST_APART apart that the window fits (S_chunk_window).

    links: as `linked_views` gives them; chunks between which the views do not hang together get no
    edge. shared: frame ids that each chunk has in the window. The m edges come from n fits, so each
    of them counts as (n - 1) / m of an edge.
    """
    pairs = [
        (a, b)
        for i, a in enumerate(window.chunks)
        for b in window.chunks[i + LEAST_APART :]
        if a in fits and b in fits and _hang_together(window, links, shared[a], shared[b])
    ]
    used = {chunk for pair in pairs for chunk in pair}
    repeated = np.sqrt(max(1.0, len(pairs) / max(len(used) - 1, 1)))
    return [_edge(a, b, fits[a], fits[b], float(repeated)) for a, b in pairs]


def least_translation_sigma(baselines: np.ndarray) -> float:
    """The smallest believed standard deviation of an edge's translation, so that one with a tiny
    baseline does not dominate; `baselines` (N,) are those of the chain, in the edge's units."""
    return float(LEAST_SIGMA[0] * BASELINE_SHARE * np.median(baselines)) if len(baselines) else 0.0


def _edge(a: int, b: int, to_a: Alignment, to_b: Alignment, repeated: float) -> ContextEdge:
    S_a_b = to_a.S_previous_current @ to_b.S_previous_current.inverse()
    to_b_units = np.array([float(to_b.S_previous_current.scale), 1.0, 1.0])
    sigma = repeated * np.hypot(to_a.sigma * to_b_units, to_b.sigma * to_b_units)
    return ContextEdge(a, b, S_a_b, sigma)


def _hang_together(
    window: ContextWindow, links: np.ndarray, first: Sequence[int], second: Sequence[int]
) -> bool:
    """Whether every view from the middle of one chunk to the middle of the other sees what the next
    one sees."""
    place = {frame: i for i, frame in enumerate(window.frame_ids)}
    start, end = (place[ids[len(ids) // 2]] for ids in (first, second))
    return bool((links[start:end] > SEEN).all())


def _seen_by_next(window: ChunkPrediction, view: int) -> float:
    depth, confidence = window.depth[view], window.confidence[view]
    step = max(1, int(np.sqrt(depth.size / SAMPLES)))
    points = unproject(
        depth[None], window.intrinsics[view : view + 1], window.T_chunk_camera[view : view + 1],
        step, step // 2,
    )[0]  # fmt: skip
    grid = np.s_[step // 2 :: step, step // 2 :: step]
    points = points[valid_pixels(depth[grid], confidence[grid])]
    if not len(points):
        return 0.0
    return float(_visible(points, window, view + 1).mean())


def _visible(points: np.ndarray, window: ChunkPrediction, view: int) -> np.ndarray:
    """Which points (N, 3) of the window's frame a view sees where it should: (N,) bool."""
    pixels, distance = project(points, window.intrinsics[view], window.T_chunk_camera[view])
    height, width = window.depth.shape[1:]
    inside = (distance > 1e-6) & (pixels >= 0).all(axis=1) & (pixels < (width, height)).all(axis=1)
    found = np.full(len(points), np.nan)
    column, row = pixels[inside].astype(np.int64).T
    found[inside] = window.depth[view][row, column]
    with np.errstate(invalid="ignore"):
        return np.abs(found - distance) <= SAME_DEPTH * distance
