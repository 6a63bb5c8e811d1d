"""Recordings with revisited places: which frames see the same surfaces, from true depth and
poses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from scal3r_ros.io.folder_depth import FolderDepth
from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.layouts.depth import indexed
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.train.sequences import world_sequences
from scal3r_ros.train.worlds.clips import ClipBatch, correspondences

_SIZE = (84, 112)
_PATCH = 7
_GAP = 20


@dataclass(frozen=True)
class Places:
    """images: (S, H, W, 3) uint8. shared: (S, S), share of the surfaces that frame i sees and
    frame j sees as well. gap: frames closer than this are neighbours."""

    images: np.ndarray
    shared: np.ndarray
    gap: int


def toured_places(count: int) -> Iterator[Places]:
    """Tours through held-out worlds that pass their start again."""
    for tour in world_sequences(count, frames=300, size=_SIZE, stride=4):
        shared = shared_views(tour.depth, tour.solid, tour.T_world_camera, tour.focal)
        yield Places(np.stack([frame.rgb for frame in tour.frames]), shared, _GAP)


def recorded_places(folder: Path) -> Places:
    """A recording with depth images, in the layout of the TUM RGB-D benchmark."""
    frames = [image.decode() for image in open_source(folder)]
    poses = dict(zip(*read_trajectory(folder / "groundtruth.txt")))
    shrunk = (_SIZE[1], _SIZE[0])
    images = [item.read() for item in FolderDepth(indexed(folder / "depth.txt"), "tum")]
    depth = np.stack([cv2.resize(x, shrunk, interpolation=cv2.INTER_NEAREST) for x in images])
    T = np.stack([poses[frame.stamp_ns] for frame in frames])
    focal = float(frames[0].intrinsics[0, 0]) * _SIZE[1] / frames[0].rgb.shape[1]
    shared = shared_views(depth, depth > 0, T, focal)
    return Places(np.stack([frame.rgb for frame in frames]), shared, _GAP)


def shared_views(
    depth: np.ndarray, solid: np.ndarray, T_world_camera: np.ndarray, focal: float
) -> np.ndarray:
    """(S, S) share of the solid patches of frame i that frame j sees too, occlusion checked."""
    views = ClipBatch(
        torch.empty(1, len(depth), 0, *depth.shape[1:]),
        torch.from_numpy(depth)[None],
        torch.from_numpy(solid)[None],
        torch.from_numpy(T_world_camera).float()[None],
        torch.tensor([focal]),
    )
    seen = correspondences(views, _PATCH).visible[0].float().sum(-1)
    centre = _PATCH // 2
    whole = views.solid[0, :, centre::_PATCH, centre::_PATCH].flatten(1).sum(1)
    return (seen / whole.clamp(min=1)[:, None]).numpy()
