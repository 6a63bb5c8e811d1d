"""A solved model made precise: its observations are compared with each other in the images, and all
cameras and points adjusted to them once more, with outliers that do not count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from scal3r_ros.reconstruct.sfm.adjustment import Observations, Priors, Scene, adjust
from scal3r_ros.reconstruct.sfm.features import Features
from scal3r_ros.reconstruct.sfm.model import Model, Tracks, ray_angles
from scal3r_ros.reconstruct.sfm.subpixel import refine_tracks

_PIXEL = 0.1
"""Standard deviation of an observation that was compared, px."""
_WIDEST = 0.5
"""The same at the start."""
_ROUGH = 8.0
"""How much less precise a feature is that could not be compared."""
_TURN, _SHIFT = 0.1, 0.2
"""How far cameras may go from where they were, rad and of the typical depth: it holds the frame and
the scale, which nothing else does."""


@dataclass(frozen=True)
class Polished:
    """A model and the features it was made from, at the places that were found."""

    model: Model
    features: tuple[Features, ...]


def polish(
    model: Model,
    features: Sequence[Features],
    images: Sequence[np.ndarray | None],
    max_error: float,
) -> Polished:
    """`features` are of all frames that the model was built from, `images` (H, W, 3) uint8 of the
    model's rows, None where one is gone. Observations farther off than `max_error` px are
    dropped."""
    tracks, K = model.tracks, model.camera.calibration_matrix()
    gray = [None if im is None else cv2.cvtColor(im, cv2.COLOR_RGB2GRAY) for im in images]
    places = np.empty((len(tracks.frame), 2))
    for row, position in enumerate(model.positions):
        mine = tracks.frame == row
        places[mine] = features[position].pixels[tracks.feature[mine]]
    refined = refine_tracks(gray, places, model, K)
    focal = model.camera.mean_focal_length()
    seen = Observations(
        tracks.frame,
        tracks.point,
        (refined.pixels - K[:2, 2]) / K[[0, 1], [0, 1]],
        np.full(len(places), np.nan),
        np.where(refined.precise, 1.0, _ROUGH),
    )
    start = Scene(np.linalg.inv(model.T_model_camera), tracks.points)
    typical = float(np.median(np.abs(start.seen(seen)[:, 2])))
    priors = Priors(_PIXEL / focal, _WIDEST / focal, 1.0, _TURN, _SHIFT * typical)
    end = adjust(start, seen, priors)
    errors = focal * end.errors(seen)
    return Polished(
        _model_of(model, end, errors, max_error), _moved(features, model, refined.pixels)
    )


def _model_of(model: Model, scene: Scene, errors: np.ndarray, max_error: float) -> Model:
    """The model with new cameras and points, without observations that are far off."""
    old = model.tracks
    kept = errors < max_error
    kept &= np.bincount(old.point[kept], minlength=len(old.points))[old.point] >= 2
    used, point = np.unique(old.point[kept], return_inverse=True)
    tracks = Tracks(scene.points[used], point, old.frame[kept], old.feature[kept])
    poses = np.linalg.inv(scene.T_camera_world)
    mean = np.bincount(point, errors[kept], len(used)) / np.bincount(point, minlength=len(used))
    return replace(
        model,
        T_model_camera=poses,
        tracks=tracks,
        angles=ray_angles(tracks, poses[:, :3, 3]),
        errors=mean,
    )


def _moved(features: Sequence[Features], model: Model, pixels: np.ndarray) -> tuple[Features, ...]:
    """The features at the places (E, 2) of the model's observations."""
    found = list(features)
    for row, position in enumerate(model.positions):
        mine = model.tracks.frame == row
        places = found[position].pixels.copy()
        places[model.tracks.feature[mine]] = pixels[mine]
        found[position] = replace(found[position], pixels=places)
    return tuple(found)
