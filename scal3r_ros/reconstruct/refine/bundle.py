"""What matched features say about a predicted chunk, and whether that is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scal3r_ros.mapping.camera import valid_pixels
from scal3r_ros.reconstruct.refine.tracks import Geometries, linked, placed
from scal3r_ros.reconstruct.sfm.adjustment import (
    Observations,
    Priors,
    Scene,
    adjust,
    pose_changes,
)
from scal3r_ros.reconstruct.sfm.features import Features
from scal3r_ros.records import ChunkPrediction

_MIN_POINTS = 40
"""Fewer say nothing about a chunk."""
_MIN_SEEN = 12
"""A frame with fewer observations that agree keeps what its neighbours have in common."""
_LOG_DEPTH = 0.3
"""Standard deviation of the logarithm of predicted depth: a weak hold."""
_PIXEL = 1.0
"""Standard deviation of a feature's position, px of the image."""
_AGREES = 3.0
"""Reprojection error of an observation that agrees, px of the image."""
_GAIN = 0.8
"""Largest ratio of the reprojection errors after and before."""
_UNCERTAINTY = 3.0
"""Standard deviations that a pose may move."""


class NotRefined(RuntimeError):
    """Features do not make the prediction better; the message says why."""


@dataclass(frozen=True)
class Refinement:
    """A chunk after bundle adjustment."""

    prediction: ChunkPrediction
    error_before: float
    """Median reprojection error, px of the image."""
    error_after: float
    points: int


@dataclass(frozen=True)
class Matched:
    """Matched features of the frames of a prediction, in their full-size images."""

    features: Sequence[Features]
    geometries: Geometries
    intrinsics: np.ndarray
    """(3, 3) of the images."""
    to_maps: np.ndarray
    """(2, 3) affine map from pixels of the images to pixels of the depth maps."""


def refine(prediction: ChunkPrediction, matched: Matched) -> Refinement:
    """Poses that suit the matches, and depth scaled with them; raises `NotRefined`."""
    start, seen, focal = _observed(prediction, matched)
    if len(start.points) < _MIN_POINTS:
        raise NotRefined(f"only {len(start.points)} matched points, {_MIN_POINTS} are needed")
    before = start.errors(seen)
    error = float(np.median(before[np.isfinite(before)]))
    typical = float(np.median(seen.depth[np.isfinite(seen.depth)]))
    uncertain = max(2 * error, 3 * _PIXEL / focal)
    priors = Priors(
        pixel=_PIXEL / focal,
        widest=max(error, _PIXEL / focal),
        log_depth=_LOG_DEPTH,
        rotation=uncertain,
        translation=uncertain * typical,
    )
    end = adjust(start, seen, priors)
    after = end.errors(seen)
    refinement = Refinement(
        _moved(prediction, start, end, seen, after < _AGREES / focal, matched),
        focal * error,
        focal * float(np.median(after)),
        len(start.points),
    )
    _check(refinement, pose_changes(start.T_camera_world, end.T_camera_world), priors)
    return refinement


def _observed(prediction: ChunkPrediction, matched: Matched) -> tuple[Scene, Observations, float]:
    """Where the prediction has the matched points, and the focal length in pixels."""
    K = matched.intrinsics
    frame, point = linked(matched.features, matched.geometries)
    pixels = np.concatenate([item.pixels for item in matched.features]).astype(float)
    rays = (pixels - K[:2, 2]) / K[[0, 1], [0, 1]]
    places = np.floor(pixels @ matched.to_maps[:, :2].T + matched.to_maps[:, 2]).astype(int)
    height, width = prediction.depth.shape[1:]
    inside = ((places >= 0) & (places < [width, height])).all(axis=1)
    column, row = np.where(inside[:, None], places, 0).T
    depth = prediction.depth[frame, row, column].astype(float)
    known = inside & valid_pixels(depth, prediction.confidence[frame, row, column])
    depth = np.where(known, depth, np.nan)
    scene, seen = placed(frame, point, rays, depth, prediction.T_chunk_camera)
    return scene, seen, float(K[0, 0])


def _check(refinement: Refinement, moves: np.ndarray, priors: Priors) -> None:
    before, after = refinement.error_before, refinement.error_after
    if not after <= _GAIN * before:
        raise NotRefined(f"the reprojection error stays at {before:.1f} px ({after:.1f} after)")
    turned = np.linalg.norm(moves[:, :3], axis=1) / priors.rotation
    shifted = np.linalg.norm(moves[:, 3:], axis=1) / priors.translation
    farthest = float(np.maximum(turned, shifted).max())
    if not farthest <= _UNCERTAINTY:
        raise NotRefined(f"a pose would move by {farthest:.1f} times its uncertainty")


def _moved(
    prediction: ChunkPrediction,
    start: Scene,
    end: Scene,
    seen: Observations,
    agrees: np.ndarray,
    matched: Matched,
) -> ChunkPrediction:
    """The prediction with the cameras of `end`, every frame's depth scaled by what its points
    say."""
    depth = end.seen(seen)[:, 2]
    known = agrees & np.isfinite(seen.depth) & (depth > 0)
    ratio = np.log(np.where(known, depth, 1.0) / np.where(known, seen.depth, 1.0))
    common = float(np.median(ratio[known])) if known.any() else 0.0
    factors = np.full(len(prediction.frame_ids), common)
    for frame in range(len(factors)):
        own = ratio[known & (seen.frame == frame)]
        if len(own) >= _MIN_SEEN:
            factors[frame] = np.median(own)
    camera = np.eye(3)
    camera[:2] = matched.to_maps
    intrinsics = np.repeat((camera @ matched.intrinsics)[None], len(factors), axis=0)
    return replace(
        prediction,
        T_chunk_camera=np.linalg.inv(end.T_camera_world),
        intrinsics=intrinsics,
        depth=prediction.depth * np.exp(factors)[:, None, None].astype(np.float32),
        points=None,
    )
