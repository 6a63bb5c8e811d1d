"""Structure from motion by pycolmap as a reconstructor: no weights of ours, no GPU.

A chunk goes on from the cameras and points of the frames that were solved last, which are this
reconstructor's memory; only where that fails is it solved from nothing. Features and matches of
frames that chunks share are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scal3r_ros.config import SfmConfig
from scal3r_ros.reconstruct.interface import (
    MemoryState,
    Outcome,
    ReconstructionFailed,
    attempt,
)
from scal3r_ros.reconstruct.sfm.calibration import SelfCalibration, from_refined, pinhole, unknown
from scal3r_ros.reconstruct.sfm.features import FeatureKind, Features, require_comparable
from scal3r_ros.reconstruct.sfm.incremental import Problem, go_on, start_anew
from scal3r_ros.reconstruct.sfm.matching import Matcher, pairs_in_time, pairs_of_loop
from scal3r_ros.reconstruct.sfm.model import Model
from scal3r_ros.reconstruct.sfm.places import describe, learn_words
from scal3r_ros.reconstruct.sfm.polish import polish
from scal3r_ros.reconstruct.sfm.prediction import DepthMaps, depth_maps, filled, spread, to_record
from scal3r_ros.reconstruct.sfm.window import Window
from scal3r_ros.records import Chunk, ChunkPrediction, Frame
from scal3r_ros.stopwatch import timed

_ENOUGH = 0.9
"""Share of a chunk's frames beyond which no other start is tried."""
_MAP_WIDTH = 640


@dataclass(frozen=True)
class Solved:
    """A model, and which of the frames it was built from are wanted."""

    model: Model
    frame_ids: tuple[int, ...]
    """Of all frames that the model was built from."""
    features: Sequence[Features]
    wanted_ids: tuple[int, ...]

    @property
    def rows(self) -> list[int]:
        """Rows of the model with the wanted frames, in order of time."""
        wanted = set(self.wanted_ids)
        found = enumerate(self.model.positions)
        return [row for row, position in found if self.frame_ids[position] in wanted]

    @property
    def positions(self) -> list[int]:
        """Positions among the wanted frames of those that were solved."""
        ids = [self.frame_ids[self.model.positions[row]] for row in self.rows]
        return [self.wanted_ids.index(i) for i in ids]


class SfmReconstructor:
    """Chunks of images in, cameras and depth out."""

    name = "sfm"
    round_size: int | None = 1

    def __init__(self, config: SfmConfig, kind: FeatureKind) -> None:
        import pycolmap

        pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
        self._config, self._kind = config, kind
        self._matcher = Matcher(kind, config.max_features, config.seed)
        self.reset()

    def reset(self) -> None:
        """Forget the last frames, the vocabulary, the calibration and all features."""
        self._words = np.zeros((0, self._kind.width), np.float32)
        self._calibration: SelfCalibration | None = None
        self._window: Window | None = None
        self._absorbed = 0
        self._matcher.forget()

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        """Reconstruct one chunk; raises `ReconstructionFailed`."""
        if chunk.kind == "loop":
            with self._matcher.set_aside():
                return self._reconstruct(chunk, contribute)
        return self._reconstruct(chunk, contribute)

    def _reconstruct(self, chunk: Chunk, contribute: bool) -> ChunkPrediction:
        chunk = replace(chunk, frames=_with_known_camera(chunk.frames))
        if chunk.frames[0].intrinsics is None and not self._is_calibrated_for(chunk):
            self._calibrate(chunk)
        seconds: dict[str, float] = {}
        frames = [self._rectified(frame) for frame in chunk.frames]
        camera = _common_camera(frames)
        with timed(seconds, "features"):
            features = [self._matcher.features_of(frame) for frame in frames]
        require_comparable([frame.rgb for frame in frames], features)
        with timed(seconds, "places"):
            descriptors = self._describe(features, contribute)
        solved = self._solve(chunk, features, descriptors, camera, seconds)
        self._check_registered(len(solved.rows), len(frames))
        with timed(seconds, "polish"):
            solved = self._polished(solved, frames)
        self._check_registered(len(solved.rows), len(frames))
        with timed(seconds, "depth"):
            maps = self._depth(chunk, frames, solved)
        absorbed = self._absorbed + contribute
        prediction = to_record(
            chunk, solved.model, solved.rows, solved.positions, maps, descriptors, absorbed, seconds
        )  # fmt: skip
        if contribute:
            # Last: a chunk that is interrupted is done again, from the memory before it.
            window = Window.of(solved.model, solved.frame_ids, solved.features)
            self._window, self._absorbed = window, absorbed
        return prediction

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        """One chunk after the other."""
        return [attempt(self, chunk) for chunk in chunks]

    def state(self) -> MemoryState:
        """The frames solved last, the vocabulary of places, and the calibration if it was found
        here."""
        arrays = {"words": self._words}
        if self._calibration is not None:
            c = self._calibration
            arrays["calibration"] = np.array([c.focal, c.radial, c.width, c.height])
        if self._window is not None:
            arrays |= self._window.arrays()
        return MemoryState(self.name, self._fingerprint, self._absorbed, arrays)

    def restore(self, state: MemoryState) -> None:
        """Take over a saved state; raises `ValueError` if it belongs to another reconstructor."""
        if state.kind != self.name or "words" not in state.arrays:
            raise ValueError(f"the memory of {state.kind!r} does not fit reconstructor sfm")
        if state.fingerprint != self._fingerprint:
            raise ValueError(
                f"the memory is of features {state.fingerprint!r}, these are {self._fingerprint!r};"
                f" set sfm.features as it was"
            )
        self.reset()
        self._words = np.array(state.arrays["words"], np.float32)
        self._absorbed = state.version
        if "calibration" in state.arrays:
            focal, radial, width, height = (float(x) for x in state.arrays["calibration"])
            self._calibration = SelfCalibration(focal, radial, int(width), int(height))
        if "window.ids" in state.arrays:
            self._window = Window.from_arrays(state.arrays)

    @property
    def _fingerprint(self) -> str:
        return f"{self._kind.name}-vlad"

    def _solve(
        self,
        chunk: Chunk,
        features: Sequence[Features],
        descriptors: np.ndarray,
        camera: Any,
        seconds: dict[str, float],
    ) -> Solved:
        """Go on from the frames solved before, where the chunk shares some; else, or if that leaves
        frames out, start anew, and take what holds more of the chunk's frames."""
        ids, wanted = chunk.frame_ids, len(chunk.frames)
        known = self._window if chunk.overlap_ids and chunk.kind != "loop" else None
        outcomes: list[Solved | ReconstructionFailed] = []
        if known is not None:
            older = [i for i in known.frame_ids if i < ids[0]]
            items = dict(zip(ids, features)) | dict(zip(known.frame_ids, known.features))
            all_ids = (*older, *ids)
            everything = tuple(items[i] for i in all_ids)
            pairs = _pairs_with_new(all_ids, known.frame_ids)
            problem = self._problem(all_ids, everything, pairs, camera, seconds)
            with timed(seconds, "mapping"):
                outcomes.append(_tried(all_ids, ids, problem, known, goes_on=True))
        if not any(isinstance(o, Solved) and len(o.rows) >= _ENOUGH * wanted for o in outcomes):
            loop = chunk.kind == "loop"
            pairs = pairs_of_loop(chunk, descriptors) if loop else pairs_in_time(wanted)
            problem = self._problem(ids, tuple(features), pairs, camera, seconds)
            with timed(seconds, "mapping"):
                outcomes.append(_tried(ids, ids, problem, known, goes_on=False))
        solved = [outcome for outcome in outcomes if isinstance(outcome, Solved)]
        if not solved:
            raise next(o for o in reversed(outcomes) if isinstance(o, ReconstructionFailed))
        return max(solved, key=lambda outcome: len(outcome.rows))

    def _problem(
        self,
        ids: Sequence[int],
        features: tuple[Features, ...],
        pairs: Sequence[tuple[int, int]],
        camera: Any,
        seconds: dict[str, float],
    ) -> Problem:
        with timed(seconds, "matching"):
            geometries = self._matcher.geometries(ids, features, pairs, camera)
        return Problem(features, geometries, camera, self._config.max_error, self._config.seed)

    def _polished(self, solved: Solved, frames: Sequence[Frame]) -> Solved:
        """The same after a closer look at the images; those of older frames are gone."""
        images = {frame.id: frame.rgb for frame in frames}
        seen = [images.get(solved.frame_ids[p]) for p in solved.model.positions]
        found = polish(solved.model, solved.features, seen, self._config.max_error / 2)
        return replace(solved, model=found.model, features=found.features)

    def _depth(self, chunk: Chunk, frames: Sequence[Frame], solved: Solved) -> DepthMaps:
        """Depth of the features, and of every pixel of the frames that the chunk will own."""
        kept = [frames[p] for p in solved.positions]
        seen = [solved.features[solved.model.positions[row]] for row in solved.rows]
        width = self._config.dense_width if self._config.dense else _MAP_WIDTH
        maps = depth_maps(kept, seen, solved.model, solved.rows, _intrinsics(frames[0]), width)
        if not self._config.dense:
            return maps
        if chunk.kind != "sequence":
            return spread(maps)
        given_away = chunk.overlap_ids[: len(chunk.overlap_ids) // 2]
        wanted = [i for i, frame in enumerate(kept) if frame.id not in given_away]
        return filled(maps, solved.model, solved.rows, wanted, self._config.dense_neighbours)

    def _is_calibrated_for(self, chunk: Chunk) -> bool:
        """A camera that changed its image size, which begins a new part, is another one."""
        found = self._calibration
        height, width = chunk.frames[0].rgb.shape[:2]
        begins = not chunk.overlap_ids and chunk.kind != "loop"
        return found is not None and (not begins or (found.height, found.width) == (height, width))

    def _calibrate(self, chunk: Chunk) -> None:
        """Find focal length and distortion with this chunk; afterwards images are rectified."""
        height, width = chunk.frames[0].rgb.shape[:2]
        camera = unknown(width, height)
        features = tuple(self._matcher.features_of(frame) for frame in chunk.frames)
        try:
            require_comparable([frame.rgb for frame in chunk.frames], features)
            pairs = pairs_in_time(len(features))
            if chunk.kind == "loop":
                pairs = pairs_of_loop(chunk, self._describe(features, False))
            problem = self._problem(chunk.frame_ids, features, pairs, camera, {})
            model = start_anew(replace(problem, refine_camera=True))
            self._check_registered(len(model.positions), len(features))
            self._calibration = from_refined(model.camera)
        finally:
            self._matcher.forget()

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

    def _describe(self, features: Sequence[Features], contribute: bool) -> np.ndarray:
        vectors = [self._kind.for_places(item.descriptors) for item in features]
        words = self._words if len(self._words) else learn_words(vectors, self._config.seed)
        if contribute:
            self._words = words
        return np.stack([describe(item, words) for item in vectors])

    def _check_registered(self, found: int, wanted: int) -> None:
        if found < self._config.min_registered * wanted:
            raise ReconstructionFailed(
                f"only {found} of {wanted} frames could be registered; too little texture, "
                f"overlap or motion (sfm.min_registered is {self._config.min_registered:g})"
            )


def _tried(
    all_ids: tuple[int, ...],
    wanted_ids: tuple[int, ...],
    problem: Problem,
    known: Window | None,
    goes_on: bool,
) -> Solved | ReconstructionFailed:
    """The frames solved one way, or why that failed: from what is known, or anew and compared with
    that."""

    def check(model: Model) -> None:
        if known is not None:
            known.check(model, all_ids)

    try:
        if goes_on and known is not None:
            model = go_on(problem, known.known(all_ids))
        else:
            model = start_anew(problem, check)
    except ReconstructionFailed as failure:
        return failure
    solved = Solved(model, all_ids, problem.features, wanted_ids)
    if len(solved.rows) < 2:
        return ReconstructionFailed("fewer than two frames are held by enough common points")
    return solved


def _pairs_with_new(ids: Sequence[int], known_ids: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours in time of which at least one was not solved before."""
    old = set(known_ids)
    return [(i, j) for i, j in pairs_in_time(len(ids)) if not {ids[i], ids[j]} <= old]


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
