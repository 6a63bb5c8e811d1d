"""Sequences to evaluate on: held-out worlds, and recordings with ground truth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.records import Frame
from scal3r_ros.train.worlds.clips import HELD_OUT_SEEDS, WorldSampler
from scal3r_ros.train.worlds.rendering import focal_length
from scal3r_ros.train.worlds.scenes import SCENE_KINDS
from scal3r_ros.train.worlds.textures import TexturePool
from scal3r_ros.train.worlds.tours import Tour, film, make_tour

_RATE = 15.0
_STAMP_TOLERANCE_NS = 30_000_000
_TUM_DEPTH_UNITS = 5000.0
"""Values per metre in the depth images of the TUM RGB-D benchmark."""


@dataclass(frozen=True)
class Sequence:
    """Frames with true poses, and in worlds true depth.

    T_world_camera: (N, 4, 4). depth, solid: (N, H, W) float32 and bool, None where no depth was
    recorded. focal: pixels of `depth`, 0 without; its principal point counts as the middle.
    """

    name: str
    frames: tuple[Frame, ...]
    T_world_camera: np.ndarray
    depth: np.ndarray | None = None
    solid: np.ndarray | None = None
    focal: float = 0.0

    @property
    def path_length(self) -> float:
        """Length of the camera's path in metres."""
        return float(np.linalg.norm(np.diff(self.T_world_camera[:, :3, 3], axis=0), axis=1).sum())


def world_sequences(
    count: int,
    frames: int,
    size: tuple[int, int] = (84, 112),
    stride: int = 1,
    first_seed: int = HELD_OUT_SEEDS + 1000,
    textures: TexturePool | None = None,
    folder: Path | None = None,
) -> Iterator[Sequence]:
    """Tours of so many frames through worlds, held-out ones unless seeds and textures say
    otherwise, all kinds in turn; every `stride`-th frame is rendered, or read from `folder`, where
    what is rendered is kept."""
    pool = textures or WorldSampler.held_out().textures
    stamps = [round(n * 1e9 / _RATE) for n in range(0, frames, stride)]
    for i in range(count):
        kind = SCENE_KINDS[i % len(SCENE_KINDS)]
        made = make_tour(kind, frames, first_seed + i, pool)
        made = replace(made, T_world_camera=made.T_world_camera[::stride])
        kept = folder and folder / f"{first_seed + i}-{frames}-{stride}-{size[0]}x{size[1]}.npz"
        rgb, depth, solid = _filmed(made, pool, size, kept)
        yield Sequence(
            f"{kind}-{i}",
            tuple(Frame(n, stamp, image) for n, (stamp, image) in enumerate(zip(stamps, rgb))),
            made.T_world_camera.double().numpy(),
            depth,
            solid,
            float(focal_length(torch.tensor(made.fov), size[1])),
        )


def _filmed(
    made: Tour, pool: TexturePool, size: tuple[int, int], kept: Path | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, H, W, 3) uint8, depth and solid of a tour; from the file `kept` if it is there."""
    if kept is not None and kept.exists():
        with np.load(kept) as stored:
            return stored["rgb"], stored["depth"], stored["solid"]
    slices = [[x.numpy() for x in part] for part in film(made, pool, size)]
    images, depth, solid = (np.concatenate([part[k] for part in slices]) for k in range(3))
    rgb = (images.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, rgb=rgb, depth=depth, solid=solid)
        os.replace(part, kept)
    return rgb, depth, solid


def real_sequences(folder: Path, stride: int = 1) -> Iterator[Sequence]:
    """Every `stride`-th frame of all recordings below `folder` that have a `groundtruth.txt`."""
    for truth in sorted(folder.glob("*/groundtruth.txt")):
        stamps, poses = read_trajectory(truth)
        measured = _depth_images(truth.parent)
        kept, found, depth = [], [], []
        for image in islice(open_source(truth.parent), 0, None, stride):
            nearest = int(np.abs(stamps - image.stamp_ns).argmin())
            if abs(int(stamps[nearest]) - image.stamp_ns) <= _STAMP_TOLERANCE_NS:
                frame = image.decode()
                kept.append(Frame(len(kept), frame.stamp_ns, frame.rgb, frame.intrinsics))
                found.append(poses[nearest])
                if measured:
                    depth.append(_depth_at(measured, frame.stamp_ns))
        name, T = truth.parent.name, np.stack(found)
        if depth and kept[0].intrinsics is not None:
            focal = float(kept[0].intrinsics[0, 0])
            metres = np.stack(depth)
            yield Sequence(name, tuple(kept), T, metres, metres > 0, focal)
        else:
            yield Sequence(name, tuple(kept), T)


def _depth_images(folder: Path) -> dict[int, Path]:
    """Depth images of a recording in the form of the TUM RGB-D benchmark by time, nanoseconds."""
    listed = folder / "depth.txt"
    if not listed.exists():
        return {}
    rows = (line.split() for line in listed.read_text().splitlines() if line[:1] not in ("#", ""))
    return {round(float(stamp) * 1e9): folder / name for stamp, name in rows}


def _depth_at(images: dict[int, Path], stamp_ns: int) -> np.ndarray:
    """Metres of the image nearest in time, 0 where unknown; raises `ValueError` if there is
    none."""
    import cv2

    nearest = min(images, key=lambda stamp: abs(stamp - stamp_ns))
    image = cv2.imread(str(images[nearest]), cv2.IMREAD_UNCHANGED)
    if abs(nearest - stamp_ns) > _STAMP_TOLERANCE_NS or image is None or image.ndim != 2:
        raise ValueError(
            f"{images[nearest]}: expected a depth image within {_STAMP_TOLERANCE_NS / 1e6:.0f} ms "
            f"of {stamp_ns} ns"
        )
    return image.astype(np.float32) / _TUM_DEPTH_UNITS
