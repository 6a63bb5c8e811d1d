"""From a solved model to the record that the mapping method takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from scal3r_ros.mapping.chunking import middle_position
from scal3r_ros.reconstruct.sfm.dense import dense_depth
from scal3r_ros.reconstruct.sfm.features import Features
from scal3r_ros.reconstruct.sfm.model import Model
from scal3r_ros.records import Chunk, ChunkPrediction, Frame

FULL_CONFIDENCE = 100.0
"""Inverse relative error of a depth beyond which it makes no difference."""
_SHARE = 0.1
_WIDEST = 8
"""Half the widest square around a feature, px."""


@dataclass(frozen=True)
class DepthMaps:
    """Depth of some frames at a common size."""

    depth: np.ndarray
    """(S, H, W) float32 z-depth, model units; NaN where unknown."""
    confidence: np.ndarray
    """(S, H, W) float32 inverse relative error of the depth; 0 where depth is unknown."""
    rgb: np.ndarray
    """(S, H, W, 3) uint8."""
    intrinsics: np.ndarray
    """(3, 3) pinhole matrix in pixels of the maps."""


def depth_maps(
    frames: Sequence[Frame],
    features: Sequence[Features],
    model: Model,
    rows: Sequence[int],
    intrinsics: np.ndarray,
    width: int,
) -> DepthMaps:
    """The depth of each feature at its pixel, in maps at most `width` pixels wide.

    `frames` and `features` belong to `rows` of the model.
    """
    full = np.array(frames[0].rgb.shape[1::-1])
    size = np.rint(full * min(1.0, width / full[0])).astype(int)
    factor = size / full
    depth = np.full((len(rows), size[1], size[0]), np.nan, np.float32)
    confidence = np.zeros_like(depth)
    for i, row in enumerate(rows):
        feature, distance, certainty = model.observations(row)
        order = np.argsort(certainty, kind="stable")
        places = (features[i].pixels[feature[order]] * factor).astype(int)
        x, y = np.clip(places, 0, size - 1).T
        depth[i, y, x] = distance[order]
        confidence[i, y, x] = np.minimum(certainty[order], FULL_CONFIDENCE)
    scaled = intrinsics.copy()
    scaled[:2] *= factor[:, None]
    shape = int(size[0]), int(size[1])
    images = [cv2.resize(f.rgb, shape, interpolation=cv2.INTER_AREA) for f in frames]
    return DepthMaps(depth, confidence, np.stack(images), scaled)


def spread(sparse: DepthMaps) -> DepthMaps:
    """The same depth at squares around the features, so wide that a tenth of the pixels is known:
    enough to be compared with dense maps on any grid."""
    depth, confidence = np.full_like(sparse.depth, np.nan), np.zeros_like(sparse.confidence)
    height, width = depth.shape[1:]
    for i, known in enumerate(np.isfinite(sparse.depth)):
        y, x = np.nonzero(known)
        order = np.argsort(sparse.confidence[i, y, x], kind="stable")
        y, x = y[order], x[order]
        reach = min(_WIDEST, int(np.sqrt(_SHARE * known.size / max(len(y), 1)) / 2 + 0.5))
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                at = np.clip(y + down, 0, height - 1), np.clip(x + right, 0, width - 1)
                depth[i][at] = sparse.depth[i, y, x]
                confidence[i][at] = sparse.confidence[i, y, x]
    return DepthMaps(depth, confidence, sparse.rgb, sparse.intrinsics)


def filled(
    sparse: DepthMaps, model: Model, rows: Sequence[int], wanted: Sequence[int], neighbours: int
) -> DepthMaps:
    """The same maps with dense depth around the features' for the frames `wanted`, counted among
    `rows`; the others as `spread`. Where two chunks share a frame they have its features in
    common, however little of it is dense."""
    images = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in sparse.rgb]
    found = dense_depth(images, rows, wanted, model, sparse.intrinsics, neighbours)
    maps = spread(sparse)
    for number, row in enumerate(wanted):
        dense = np.isfinite(found.depth[number])
        certainty = np.minimum(found.certainty[number], FULL_CONFIDENCE)
        maps.depth[row] = np.where(dense, found.depth[number], sparse.depth[row])
        maps.confidence[row] = np.where(dense, certainty, sparse.confidence[row])
    return maps


def to_record(
    chunk: Chunk,
    model: Model,
    rows: Sequence[int],
    positions: Sequence[int],
    maps: DepthMaps,
    descriptors: np.ndarray,
    absorbed: int,
    seconds: dict[str, float],
) -> ChunkPrediction:
    """The frames at `rows` of the model and `positions` of the chunk, in the middle one's
    coordinates, with a median depth of 1."""
    poses = model.T_model_camera[list(rows)]
    unit = float(np.median(np.concatenate([model.observations(row)[1] for row in rows])))
    T_chunk_camera = np.linalg.inv(poses[middle_position(len(poses))]) @ poses
    T_chunk_camera[:, :3, 3] /= unit
    return ChunkPrediction(
        chunk_index=chunk.index,
        frame_ids=tuple(chunk.frame_ids[p] for p in positions),
        T_chunk_camera=T_chunk_camera,
        intrinsics=np.repeat(maps.intrinsics[None], len(poses), axis=0),
        depth=maps.depth / np.float32(unit),
        confidence=maps.confidence,
        rgb=maps.rgb,
        missing_ids=tuple(i for p, i in enumerate(chunk.frame_ids) if p not in positions),
        descriptors=descriptors[list(positions)],
        memory_version=absorbed,
        timings=seconds,
    )
