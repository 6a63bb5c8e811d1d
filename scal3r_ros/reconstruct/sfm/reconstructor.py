"""Structure from motion by pycolmap as a reconstructor: no weights, no GPU, sparse depth maps.

A feature keeps its pixel in every chunk, so the depth that neighbouring chunks find for it is what
aligns them. Features and matches of frames that chunks share are computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import cv2
import numpy as np

from scal3r_ros.config import SfmConfig
from scal3r_ros.reconstruct.interface import MemoryState, ReconstructionFailed
from scal3r_ros.reconstruct.sfm.calibration import SelfCalibration, from_refined, pinhole, unknown
from scal3r_ros.reconstruct.sfm.features import Features, extract, match, verify
from scal3r_ros.reconstruct.sfm.incremental import Model, build
from scal3r_ros.reconstruct.sfm.places import describe, learn_words
from scal3r_ros.records import Chunk, ChunkPrediction, Frame
from scal3r_ros.stopwatch import timed

_NEIGHBOURS = (1, 2, 3, 4, 5, 8, 12)
"""Distances in the chunk at which frames are matched."""
_REVISITS = 4
"""Most similar frames of the other visit that a frame of a loop chunk is matched with."""
_CACHED_FRAMES = 256
_MAP_WIDTH = 640
_FULL_CONFIDENCE = 30.0
"""Square root of the inverse relative depth error beyond which it makes no difference."""


class SfmReconstructor:
    """Chunks of images in, cameras and depth at feature points out."""

    name = "sfm"
    round_size: int | None = 1

    def __init__(self, config: SfmConfig) -> None:
        import pycolmap

        pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Forget the vocabulary, the calibration and all features."""
        self._words = np.zeros((0, 128), np.float32)
        self._calibration: SelfCalibration | None = None
        self._absorbed = 0
        self._forget_features()

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        """Reconstruct one chunk; raises `ReconstructionFailed`."""
        chunk = replace(chunk, frames=_with_known_camera(chunk.frames))
        if chunk.frames[0].intrinsics is None and self._calibration is None:
            self._calibrate(chunk)
        seconds: dict[str, float] = {}
        frames = [self._rectified(frame) for frame in chunk.frames]
        with timed(seconds, "features"):
            features = [self._features_of(frame) for frame in frames]
        camera = _common_camera(frames)
        with timed(seconds, "places"):
            descriptors = self._describe(features, contribute)
        with timed(seconds, "matching"):
            geometries = self._match(chunk, features, descriptors, camera)
        with timed(seconds, "mapping"):
            model = build(
                features, geometries, camera, False, self._config.max_error, self._config.seed
            )
        self._check_registered(len(model.positions), len(frames))
        self._absorbed += contribute
        self._forget_old()
        return _to_record(chunk, frames, features, model, descriptors, self._absorbed, seconds)

    def reconstruct_round(
        self, chunks: Sequence[Chunk]
    ) -> list[ChunkPrediction | ReconstructionFailed]:
        """One chunk after the other."""
        outcomes: list[ChunkPrediction | ReconstructionFailed] = []
        for chunk in chunks:
            try:
                outcomes.append(self.reconstruct(chunk))
            except ReconstructionFailed as failure:
                outcomes.append(failure)
        return outcomes

    def state(self) -> MemoryState:
        """The vocabulary of places and the calibration, if it was found here."""
        arrays = {"words": self._words}
        if self._calibration is not None:
            c = self._calibration
            arrays["calibration"] = np.array([c.focal, c.radial, c.width, c.height])
        return MemoryState(self.name, "sift-vlad", self._absorbed, arrays)

    def restore(self, state: MemoryState) -> None:
        """Take over a saved state; raises `ValueError` if it belongs to another reconstructor."""
        if state.kind != self.name or "words" not in state.arrays:
            raise ValueError(f"the memory of {state.kind!r} does not fit reconstructor sfm")
        self.reset()
        self._words = np.array(state.arrays["words"], np.float32)
        self._absorbed = state.version
        if "calibration" in state.arrays:
            focal, radial, width, height = (float(x) for x in state.arrays["calibration"])
            self._calibration = SelfCalibration(focal, radial, int(width), int(height))

    def _calibrate(self, chunk: Chunk) -> None:
        """Find focal length and distortion with this chunk; afterwards images are rectified."""
        height, width = chunk.frames[0].rgb.shape[:2]
        camera = unknown(width, height)
        features = [self._features_of(frame) for frame in chunk.frames]
        try:
            geometries = self._match(chunk, features, self._describe(features, False), camera)
            model = build(
                features, geometries, camera, True, self._config.max_error, self._config.seed
            )
            self._check_registered(len(model.positions), len(features))
            self._calibration = from_refined(model.camera)
        finally:
            self._forget_features()

    def _rectified(self, frame: Frame) -> Frame:
        if frame.intrinsics is not None:
            return frame
        calibration = self._calibration
        if calibration is None:
            raise ReconstructionFailed(f"frame {frame.id} has no intrinsics, unlike others")
        if frame.rgb.shape[:2] != (calibration.height, calibration.width):
            raise ReconstructionFailed(f"frame {frame.id} has another size than those before")
        rectified = calibration.rectify(frame.rgb)
        return Frame(frame.id, frame.stamp_ns, rectified, calibration.intrinsics)

    def _features_of(self, frame: Frame) -> Features:
        if frame.id not in self._features:
            self._features[frame.id] = extract(frame.rgb, self._config.max_features)
        return self._features[frame.id]

    def _describe(self, features: list[Features], contribute: bool) -> np.ndarray:
        words = self._words if len(self._words) else learn_words(features, self._config.seed)
        if contribute:
            self._words = words
        return np.stack([describe(item, words) for item in features])

    def _match(
        self, chunk: Chunk, features: list[Features], descriptors: np.ndarray, camera: Any
    ) -> dict[tuple[int, int], Any]:
        """Verified geometry of every pair worth trying, by positions in the chunk."""
        geometries = {}
        for first, second in _pairs(chunk, descriptors):
            ids = chunk.frame_ids[first], chunk.frame_ids[second]
            if ids not in self._geometries:
                pair = features[first], features[second]
                self._geometries[ids] = verify(*pair, match(*pair), camera, self._config.seed)
            if self._geometries[ids] is not None:
                geometries[first, second] = self._geometries[ids]
        return geometries

    def _check_registered(self, found: int, wanted: int) -> None:
        if found < self._config.min_registered * wanted:
            raise ReconstructionFailed(
                f"only {found} of {wanted} frames could be registered; too little texture, "
                f"overlap or motion (sfm.min_registered is {self._config.min_registered:g})"
            )

    def _forget_features(self) -> None:
        self._features: dict[int, Features] = {}
        self._geometries: dict[tuple[int, int], Any] = {}

    def _forget_old(self) -> None:
        for frame_id in list(self._features)[:-_CACHED_FRAMES]:
            del self._features[frame_id]
        if len(self._geometries) > _CACHED_FRAMES * 2 * len(_NEIGHBOURS):
            kept = self._features.keys()
            self._geometries = {ids: g for ids, g in self._geometries.items() if kept >= set(ids)}


def _pairs(chunk: Chunk, descriptors: np.ndarray) -> Iterator[tuple[int, int]]:
    """Neighbours in time; in a loop chunk also the most similar frames of the two visits."""
    count = len(chunk.frames)
    ids = np.array(chunk.frame_ids)
    pairs = {(i, i + step) for step in _NEIGHBOURS for i in range(count - step)}
    if chunk.kind == "loop":
        cut = int(np.diff(ids).argmax()) + 1
        pairs = {(i, j) for i, j in pairs if (i < cut) == (j < cut)}
        similar = descriptors[:cut] @ descriptors[cut:].T
        for row in range(cut):
            best = np.argsort(-similar[row], kind="stable")[:_REVISITS]
            pairs |= {(row, cut + int(j)) for j in best}
        for column in range(count - cut):
            best = np.argsort(-similar[:, column], kind="stable")[:_REVISITS]
            pairs |= {(int(i), cut + column) for i in best}
    elif count <= max(_NEIGHBOURS) // 2:
        pairs = set(combinations(range(count), 2))
    return iter(sorted(pairs))


def _with_known_camera(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Frames that came before the first calibration message get that of the later ones."""
    known = {f.rgb.shape: f.intrinsics for f in reversed(frames) if f.intrinsics is not None}
    return tuple(
        replace(f, intrinsics=known.get(f.rgb.shape)) if f.intrinsics is None else f for f in frames
    )


def _common_camera(frames: Sequence[Frame]) -> Any:
    first, intrinsics = frames[0], _intrinsics(frames[0])
    for frame in frames[1:]:
        if not np.array_equal(_intrinsics(frame), intrinsics):
            raise ReconstructionFailed(
                f"frames {first.id} and {frame.id} have different intrinsics; sfm needs one camera"
            )
    height, width = first.rgb.shape[:2]
    return pinhole(intrinsics, width, height)


def _intrinsics(rectified: Frame) -> np.ndarray:
    assert rectified.intrinsics is not None
    return rectified.intrinsics


def _to_record(
    chunk: Chunk,
    frames: Sequence[Frame],
    features: Sequence[Features],
    model: Model,
    descriptors: np.ndarray,
    absorbed: int,
    seconds: dict[str, float],
) -> ChunkPrediction:
    """Write the depth of each feature at its pixel, in the middle frame's coordinates, with a
    median depth of 1."""
    height, width = frames[0].rgb.shape[:2]
    size = (round(width / -(-width // _MAP_WIDTH)), round(height / -(-width // _MAP_WIDTH)))
    factor = np.array([size[0] / width, size[1] / height])
    unit = float(np.median(np.concatenate([o.depth for o in model.observations])))
    kept = [frames[p] for p in model.positions]
    depth = np.full((len(kept), size[1], size[0]), np.nan, np.float32)
    confidence = np.zeros_like(depth)
    for i, (position, seen) in enumerate(zip(model.positions, model.observations)):
        order = np.argsort(seen.confidence, kind="stable")
        pixels = features[position].pixels[seen.features[order]] * factor
        column, row = np.clip(pixels.astype(int), 0, np.array(size) - 1).T
        depth[i, row, column] = seen.depth[order] / unit
        confidence[i, row, column] = np.minimum(np.sqrt(seen.confidence[order]), _FULL_CONFIDENCE)
    intrinsics = _intrinsics(frames[0]).copy()
    intrinsics[:2] *= factor[:, None]
    reference = model.T_model_camera[(len(kept) + 1) // 2 - 1]
    T_chunk_camera = np.linalg.inv(reference) @ model.T_model_camera
    T_chunk_camera[:, :3, 3] /= unit
    return ChunkPrediction(
        chunk_index=chunk.index,
        frame_ids=tuple(frame.id for frame in kept),
        T_chunk_camera=T_chunk_camera,
        intrinsics=np.repeat(intrinsics[None], len(kept), axis=0),
        depth=depth,
        confidence=confidence,
        rgb=np.stack([cv2.resize(f.rgb, size, interpolation=cv2.INTER_AREA) for f in kept]),
        missing_ids=tuple(f.id for p, f in enumerate(frames) if p not in model.positions),
        descriptors=descriptors[list(model.positions)],
        memory_version=absorbed,
        timings=seconds,
    )
