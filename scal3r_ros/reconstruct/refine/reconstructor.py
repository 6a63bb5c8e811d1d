"""A reconstructor whose chunks are refined by bundle adjustment where that is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scal3r_ros.reconstruct.interface import MemoryState, Outcome, Reconstructor
from scal3r_ros.reconstruct.refine.bundle import Matched, NotRefined, refine
from scal3r_ros.reconstruct.sfm.calibration import pinhole
from scal3r_ros.reconstruct.sfm.features import FeatureKind
from scal3r_ros.reconstruct.sfm.matching import Matcher, pairs_in_time, pairs_of_loop
from scal3r_ros.records import Chunk, ChunkPrediction, Frame
from scal3r_ros.stopwatch import timed

_CROPPED = 7.0
"""Half a patch: a network's input is cropped only where its shape differs by more, px."""


class RefinedReconstructor:
    """Passes every call to `inner`; what it predicts is adjusted to matched features. The network's
    memory never sees that."""

    def __init__(self, inner: Reconstructor, kind: FeatureKind, max_features: int, seed: int):
        self._inner = inner
        self.name = inner.name
        self.round_size = inner.round_size
        self._matcher = Matcher(kind, max_features, seed)

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        """As `inner`; `ChunkPrediction.note` says whether it was refined."""
        return self._refined(chunk, self._inner.reconstruct(chunk, contribute))

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        """As `inner`."""
        outcomes = self._inner.reconstruct_round(chunks)
        return [
            self._refined(chunk, outcome) if isinstance(outcome, ChunkPrediction) else outcome
            for chunk, outcome in zip(chunks, outcomes)
        ]

    def reset(self) -> None:
        """Forget everything absorbed, and the features of old frames."""
        self._matcher.forget()
        self._inner.reset()

    def state(self) -> MemoryState:
        """The memory of `inner`; features are found again from the images."""
        return self._inner.state()

    def restore(self, state: MemoryState) -> None:
        """As `inner`."""
        self._inner.restore(state)

    def _refined(self, chunk: Chunk, prediction: ChunkPrediction) -> ChunkPrediction:
        seconds = dict(prediction.timings)
        with timed(seconds, "refine"):
            try:
                done = refine(prediction, self._matched(chunk, prediction))
            except NotRefined as reason:
                note = f"chunk {chunk.index} stays as the network predicted it: {reason}"
                return replace(prediction, note=note, timings=seconds)
        note = (
            f"chunk {chunk.index} is refined by {done.points} points: reprojection error "
            f"{done.error_before:.1f} to {done.error_after:.1f} px"
        )
        return replace(done.prediction, note=note, timings=seconds)

    def _matched(self, chunk: Chunk, prediction: ChunkPrediction) -> Matched:
        found = set(prediction.frame_ids)
        frames = [frame for frame in chunk.frames if frame.id in found]
        if len({frame.rgb.shape for frame in frames}) > 1:
            raise NotRefined("its images differ in size")
        height, width = frames[0].rgb.shape[:2]
        to_maps = _to_maps((height, width), prediction.depth.shape[1:])
        K = _intrinsics(frames, prediction, to_maps)
        features = [self._matcher.features_of(frame) for frame in frames]
        pairs = pairs_in_time(len(frames))
        if chunk.kind == "loop" and prediction.descriptors is not None:
            pairs = pairs_of_loop(replace(chunk, frames=tuple(frames)), prediction.descriptors)
        ids, camera = prediction.frame_ids, pinhole(K, width, height)
        return Matched(features, self._matcher.geometries(ids, features, pairs, camera), K, to_maps)


def _to_maps(image: tuple[int, ...], maps: tuple[int, ...]) -> np.ndarray:
    """(2, 3) from pixels of an image (height, width) to those of what the network made of it:
    scaled to cover its input, and cropped about the centre where the shapes differ."""
    cover = max(maps[0] / image[0], maps[1] / image[1])
    sizes = [cover * length for length in image]
    sizes = [m if abs(size - m) < _CROPPED else size for size, m in zip(sizes, maps)]
    down, right = (size / length for size, length in zip(sizes, image))
    top, left = ((size - m) / 2 for size, m in zip(sizes, maps))
    return np.array([[right, 0.0, -left], [0.0, down, -top]])


def _intrinsics(
    frames: Sequence[Frame], prediction: ChunkPrediction, to_maps: np.ndarray
) -> np.ndarray:
    """(3, 3) of the images: the camera's own if it is known, else what the network says about the
    chunk, one camera for all frames."""
    known = [frame.intrinsics for frame in frames if frame.intrinsics is not None]
    if known:
        if any(not np.array_equal(K, known[0]) for K in known):
            raise NotRefined("its frames have different intrinsics")
        return known[0]
    scaled = np.median(prediction.intrinsics, axis=0)
    back = np.eye(3)
    back[:2] = to_maps
    return np.linalg.inv(back) @ scaled
