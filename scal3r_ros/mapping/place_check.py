"""Whether two groups of images that were reconstructed together show one place.

A network always puts its frames somewhere, also on top of strangers. Its answer is believed only if
the two groups agree pixel by pixel: surfaces of the one, moved into cameras of the other, must lie
where those see surfaces, and must look like them there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from scal3r_ros.mapping.camera import project, unproject, valid_pixels
from scal3r_ros.mapping.loop_records import is_sparse
from scal3r_ros.records import ChunkPrediction

PIXELS = 1500
"""Pixels of a frame that are compared."""
SAME_DEPTH = 0.15
"""Relative difference of two depths of one surface."""
_REACH = 5
"""Edge of the square, in pixels, for which a depth that is known at single points stands."""
_FINE, _COARSE = 0.012, 0.08
"""Blur radii, shares of the image width, between which structure is compared: finer is lost to
errors of the poses, coarser is shading that all places share."""
_LEAST_SHARED = 20
"""Pixels that two frames must share for their likeness to mean anything."""


@dataclass(frozen=True)
class PlaceAgreement:
    """How well two groups of frames agree."""

    shared: float
    """Share of the compared pixels of the first group that fall on known surfaces of the second."""
    depth: float
    """Share of these whose depths agree."""
    likeness: float
    """Correlation of the images there, the median over the frames of the second group; -1 to 1."""

    def refusal(self, min_likeness: float, min_depth: float) -> str:
        """Why this is not one place; empty if it is."""
        if self.likeness < min_likeness:
            return f"the images differ (likeness {self.likeness:.2f})"
        if self.depth < min_depth:
            return f"the surfaces differ (agreement {self.depth:.2f})"
        return ""


def place_agreement(
    prediction: ChunkPrediction, first: tuple[int, ...], second: tuple[int, ...]
) -> PlaceAgreement:
    """Compare two groups of a prediction's frames, by id; frames it does not hold are left out."""
    here, there = prediction.of_frames(first), _widened(prediction.of_frames(second))
    if not here.frame_ids or not there.frame_ids:
        return PlaceAgreement(0.0, 0.0, 0.0)
    structure = [_structure(rgb) for rgb in here.rgb], [_structure(rgb) for rgb in there.rgb]
    points = _points(here)
    shared, agreeing, likeness = [], [], []
    for row in range(len(there.frame_ids)):
        best = max(
            (_compare(points[i], structure[0][i], there, row, structure[1][row])
             for i in range(len(points))),
            key=lambda pair: pair.shared * pair.depth,
        )  # fmt: skip
        shared.append(best.shared)
        agreeing.append(best.depth)
        likeness.append(best.likeness)
    return PlaceAgreement(*(float(np.median(values)) for values in (shared, agreeing, likeness)))


def _widened(group: ChunkPrediction) -> ChunkPrediction:
    """Depth known at feature points only is taken for the pixels around them too, which the points
    of other frames meet up to errors of projection."""
    if not is_sparse(group):
        return group
    square = np.ones((_REACH, _REACH), np.uint8)
    known = [np.where(valid_pixels(d, c), d, 0.0) for d, c in zip(group.depth, group.confidence)]
    depth = np.stack([cv2.dilate(plane.astype(np.float32), square) for plane in known])
    confidence = np.stack([cv2.dilate(plane, square) for plane in group.confidence])
    return replace(group, depth=depth, confidence=confidence)


def _points(group: ChunkPrediction) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points (N, 3) of each frame and their flat pixel positions (N,), evenly thinned."""
    world = unproject(group.depth, group.intrinsics, group.T_chunk_camera)
    found = []
    for i in range(len(group.frame_ids)):
        known = np.flatnonzero(valid_pixels(group.depth[i], group.confidence[i]))
        known = known[:: max(1, len(known) // PIXELS)]
        found.append((world[i].reshape(-1, 3)[known].astype(np.float64), known))
    return found


def _compare(
    points: tuple[np.ndarray, np.ndarray],
    structure: np.ndarray,
    there: ChunkPrediction,
    row: int,
    seen: np.ndarray,
) -> PlaceAgreement:
    """One frame of the first group in one camera of the second."""
    world, pixels = points
    if len(world) < _LEAST_SHARED:
        return PlaceAgreement(0.0, 0.0, 0.0)
    image, depth = project(world, there.intrinsics[row], there.T_chunk_camera[row])
    height, width = there.depth.shape[1:]
    with np.errstate(invalid="ignore"):
        inside = (depth > 0) & (image >= 0).all(axis=1) & (image < (width, height)).all(axis=1)
    column, line = image[inside].astype(np.int64).T
    known = valid_pixels(there.depth[row], there.confidence[row])[line, column]
    if known.sum() < _LEAST_SHARED:
        return PlaceAgreement(float(known.sum()) / len(world), 0.0, 0.0)
    column, line = column[known], line[known]
    ratio = np.log(there.depth[row][line, column] / depth[inside][known])
    same = np.abs(ratio) < SAME_DEPTH
    mine = structure.ravel()[pixels[inside][known]][same]
    likeness = _correlation(mine, seen[line, column][same]) if same.sum() >= _LEAST_SHARED else 0.0
    return PlaceAgreement(float(known.sum()) / len(world), float(same.mean()), likeness)


def _structure(rgb: np.ndarray) -> np.ndarray:
    """(H, W) float32 brightness between two blurs."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    width = rgb.shape[1]
    fine, coarse = (cv2.GaussianBlur(grey, (0, 0), share * width) for share in (_FINE, _COARSE))
    return fine - coarse


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-9))
