"""Image features for structure from motion: what a kind of feature offers, and the verification of
a pair of images.

Everything here gives the same answer in every run: descriptors are whole numbers, so their
products are exact in float32 whatever the order of summation, and sampling is seeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from scal3r_ros.reconstruct.interface import ReconstructionFailed

UNIT = 512.0
"""Length to which descriptors are scaled before rounding."""
_TWO_VIEW_ERROR = 2.0
_TRIALS = 600
"""Bound of RANSAC: a pair that needs more has too few true matches to help."""
MIN_MATCHES = 20
"""Fewer verified matches do not count as seeing the same thing."""


@dataclass(frozen=True)
class Features:
    """Features of one image."""

    pixels: np.ndarray
    """(N, 2) float32, column and row; the first pixel's centre is (0.5, 0.5)."""
    descriptors: np.ndarray
    """(N, D) float32 whole numbers, each row about `UNIT` long."""
    precise: int = 0
    """The first so many are placed well below a pixel."""


class FeatureKind(Protocol):
    """A way to find and to compare features."""

    name: str
    width: int
    """Numbers in a descriptor."""

    def extract(self, rgb: np.ndarray, limit: int) -> Features:
        """The `limit` strongest features of an image (H, W, 3) uint8, one per place."""

    def match(self, first: Features, second: Features) -> np.ndarray:
        """(M, 2) uint32 indices of features that look alike and belong to nothing else."""

    def for_places(self, descriptors: np.ndarray) -> np.ndarray:
        """(N, D) unit vectors whose distances suit a vocabulary of places."""


def require_comparable(images: Sequence[np.ndarray], features: Sequence[Features]) -> None:
    """Tell apart why nothing can be matched: one image (H, W, 3) alone, or images without texture.
    Raises `ReconstructionFailed`."""
    if len(images) == 1:
        raise ReconstructionFailed(
            "one frame alone has nothing to be compared with; images that come further apart than "
            "gate.max_gap start a part of their own: raise it, or set it to 0 for no limit"
        )
    count = float(np.median([len(item.pixels) for item in features]))
    if count >= MIN_MATCHES:
        return
    brightness = float(np.median([image[::4, ::4].mean() for image in images]))
    what = (
        "too dark" if brightness < 20 else "too bright" if brightness > 235 else "blurred or plain"
    )
    raise ReconstructionFailed(
        f"half of the frames have fewer than {MIN_MATCHES} features: the images are {what} (mean "
        f"brightness {brightness:.0f} of 255)"
    )


def nearest_neighbours(
    first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mutual nearest neighbours of descriptors (N, D) and (M, D).

    Returns their rows in both (K,), their cosine (K,) and that of the second best in `second` (K,).
    """
    if len(first) < 2 or len(second) < 2:
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0, np.float32), np.zeros(0, np.float32)
    products = first @ second.T
    nearest, back = products.argmax(axis=1), products.argmax(axis=0)
    rows = np.flatnonzero(back[nearest] == np.arange(len(first)))
    columns = nearest[rows]
    best = products[rows, columns] / UNIT**2
    products = products[rows]
    products[np.arange(len(rows)), columns] = -UNIT * UNIT
    return rows, columns, best, products.max(axis=1, initial=-UNIT * UNIT) / UNIT**2


def spread(pixels: np.ndarray, scores: np.ndarray, size: np.ndarray, limit: int) -> np.ndarray:
    """Indices of the `limit` points to keep among pixels (N, 2), best first, of an image of `size`
    (width, height).

    Points compete within cells that would hold four each if they were even: the best of every cell
    come first, then the second best, so that no textured corner of the image takes all.
    """
    if len(pixels) <= limit:
        return np.arange(len(pixels))
    edge = float(np.sqrt(4 * size.prod() / limit))
    cells = (pixels // edge).astype(int) @ np.array([1, 10000])
    order = np.lexsort((np.arange(len(pixels)), cells))  # within a cell best first
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    place = np.empty(len(order), int)
    place[order] = rank
    return np.sort(np.lexsort((-scores, place))[:limit])


def verify(
    first: Features,
    second: Features,
    matches: np.ndarray,
    camera: Any,
    seed: int,
    least_share: float,
) -> Any:
    """Epipolar geometry of two images by RANSAC: a `pycolmap.TwoViewGeometry` with its inliers,
    None if too few matches, or less than `least_share` of them, agree with one."""
    import pycolmap

    if len(matches) < MIN_MATCHES:
        return None
    pixels: list[Any] = [
        item.pixels[matches[:, side]].astype(np.float64)
        for side, item in enumerate((first, second))
    ]
    K, lens = camera.calibration_matrix(), _distortion(camera)
    sampling = _sampling(seed)
    E, inliers = cv2.findEssentialMat(pixels[0], pixels[1], K, K, lens, lens, sampling)
    if inliers is None or inliers.sum() < max(MIN_MATCHES, least_share * len(matches)):
        return None
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
    geometry.E = E
    geometry.inlier_matches = matches[inliers[:, 0] > 0]
    return geometry


def _sampling(seed: int) -> cv2.UsacParams:
    sampling = cv2.UsacParams()
    sampling.randomGeneratorState = seed
    sampling.threshold = _TWO_VIEW_ERROR
    sampling.confidence = 0.999
    sampling.maxIterations = _TRIALS
    sampling.isParallel = False
    sampling.sampler = cv2.SAMPLING_UNIFORM
    sampling.score = cv2.SCORE_METHOD_MSAC
    sampling.loMethod = cv2.LOCAL_OPTIM_INNER_LO
    sampling.loIterations, sampling.loSampleSize = 5, 20
    sampling.final_polisher = cv2.NONE_POLISHER
    return sampling


def _distortion(camera: Any) -> np.ndarray:
    """OpenCV's coefficients of a `pycolmap.Camera`, pinhole or with one radial coefficient."""
    radial = camera.params[3] if camera.model.name == "SIMPLE_RADIAL" else 0.0
    return np.array([radial, 0.0, 0.0, 0.0])
