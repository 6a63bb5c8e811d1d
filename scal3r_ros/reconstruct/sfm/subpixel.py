"""Where exactly a point is seen: patches around its observations are brought to cover that of one
of them (Baker and Matthews, IJCV 2004, inverse compositional), turned and scaled as the poses say.

Features are found in every image by themselves, to a fifth of a pixel, learned ones to a whole one;
images compared with each other are more precise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from scal3r_ros.reconstruct.sfm.model import Model

_REACH = 4
"""Half the edge of a patch, px."""
_ROUNDS = 6
_STEP = 1.0
"""Longest step of a round, px."""
_FARTHEST = 2.5
"""A patch that moves farther shows something else, px."""
_ALIKE = 0.85
"""Smallest correlation of patches that show the same."""
_LEAST_TEXTURE = 4.0
"""Smallest standard deviation of a patch, grey levels."""


@dataclass(frozen=True)
class Refined:
    """Observations of a model's tracks after comparison; arrays (E,) have one entry for each."""

    pixels: np.ndarray
    """(E, 2) float64, the first pixel's centre at (0.5, 0.5)."""
    precise: np.ndarray
    """(E,) bool: whether the images agree; else the pixel is the feature's own."""


def refine_tracks(
    images: Sequence[np.ndarray | None], pixels: np.ndarray, model: Model, intrinsics: np.ndarray
) -> Refined:
    """Compare every observation with the middle one of its track.

    `images` (H, W) uint8 belong to the model's rows, `pixels` (E, 2) to its observations. Where an
    image is gone its observations stand, and tell which of the others they were compared with.
    """
    tracks = model.tracks
    smooth = [None if im is None else _smooth(im) for im in images]
    here = np.array([image is not None for image in images])[tracks.frame]
    reference = _references(tracks.point, tracks.frame, here)
    warps = _warps(model, reference, pixels, intrinsics)
    corner = pixels - 0.5  # OpenCV's pixels
    grid = np.stack(np.meshgrid(*[np.arange(-_REACH, _REACH + 1.0)] * 2), -1).reshape(-1, 2)
    own = _sampled(smooth, tracks.frame, corner[:, None] + grid)
    texture = own.std(axis=1)
    wanted, down, across = own[reference], *_derivatives(own[reference])
    steepest = np.stack([across, down], axis=-1)
    steepest -= steepest.mean(axis=1, keepdims=True)
    curvature = np.einsum("epi,epj->eij", steepest, steepest)
    trace = np.trace(curvature, axis1=1, axis2=2)
    curvature += (1e-3 * trace + 1e-6)[:, None, None] * np.eye(2)
    target = _normalised(wanted)
    spread = wanted.std(axis=1, keepdims=True)
    turned = np.einsum("eij,pj->epi", warps, grid)
    place = corner.copy()
    for _ in range(_ROUNDS):
        seen = _normalised(_sampled(smooth, tracks.frame, place[:, None] + turned))
        off = (seen - target) * spread
        step = np.linalg.solve(curvature, np.einsum("epi,ep->ei", steepest, off)[..., None])[..., 0]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, _STEP / np.maximum(length, 1e-9))
        place -= np.einsum("eij,ej->ei", warps, step)
    seen = _normalised(_sampled(smooth, tracks.frame, place[:, None] + turned))
    alike = (seen * target).mean(axis=1) > _ALIKE
    near = np.linalg.norm(place - corner, axis=1) < _FARTHEST
    stands = (reference == np.arange(len(reference))) | ~here
    clear = (texture > _LEAST_TEXTURE) & (texture[reference] > _LEAST_TEXTURE)
    good = alike & near & clear & ~stands
    return Refined(np.where(good[:, None], place + 0.5, pixels), good | stands)


def _references(point: np.ndarray, frame: np.ndarray, here: np.ndarray) -> np.ndarray:
    """(E,) for every observation the one of its point that it is compared with: the middle one in
    order of time, but the first one `here` of points that older frames saw, which is placed as in
    those; any where none is here."""
    order = np.lexsort((frame, ~here, point))
    _, starts, counts = np.unique(point[order], return_index=True, return_counts=True)
    present = np.add.reduceat(here[order].astype(int), starts) if len(order) else counts
    chosen = order[starts + np.where(present < counts, 0, counts // 2)]
    reference = np.empty(len(point), int)
    reference[order] = np.repeat(chosen, counts)
    return reference


def _smooth(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (3, 3), 0).astype(np.float32)


def _warps(
    model: Model, reference: np.ndarray, pixels: np.ndarray, intrinsics: np.ndarray
) -> np.ndarray:
    """(E, 2, 2) how a small patch of the reference, facing it, looks in each observing frame."""
    tracks = model.tracks
    T = np.linalg.inv(model.T_model_camera)[tracks.frame]
    centre = model.T_model_camera[tracks.frame[reference]]
    back = np.linalg.inv(intrinsics)
    from_reference = np.linalg.inv(centre)
    depth = (np.einsum("ej,ej->e", from_reference[:, 2, :3], tracks.points[tracks.point])
             + from_reference[:, 2, 3])  # fmt: skip
    ends = []
    for shift in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        moved = np.concatenate([pixels[reference] + shift, np.ones((len(pixels), 1))], axis=1)
        local = depth[:, None] * (moved @ back.T)
        world = np.einsum("eij,ej->ei", centre[:, :3, :3], local) + centre[:, :3, 3]
        seen = (np.einsum("eij,ej->ei", T[:, :3, :3], world) + T[:, :3, 3]) @ intrinsics.T
        ends.append(seen[:, :2] / np.maximum(seen[:, 2:], 1e-9))
    return np.stack([ends[1] - ends[0], ends[2] - ends[0]], axis=-1)


def _sampled(
    images: Sequence[np.ndarray | None], frame: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """(E, P) values of the image `frame` (E,) at places (E, P, 2); 0 where it is gone."""
    values = np.zeros(places.shape[:2], np.float32)
    for row, image in enumerate(images):
        mine = np.flatnonzero(frame == row)
        if len(mine) and image is not None:
            x, y = np.moveaxis(places[mine].astype(np.float32), -1, 0)
            values[mine] = cv2.remap(
                image, np.ascontiguousarray(x), np.ascontiguousarray(y), cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
    return values


def _derivatives(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Down and across, of square patches (E, P)."""
    edge = 2 * _REACH + 1
    down, across = np.gradient(patches.reshape(-1, edge, edge), axis=(1, 2))
    return down.reshape(len(patches), -1), across.reshape(len(patches), -1)


def _normalised(patches: np.ndarray) -> np.ndarray:
    centred = patches - patches.mean(axis=1, keepdims=True)
    return centred / np.maximum(patches.std(axis=1, keepdims=True), 1e-3)
