"""Where a chunk lies in a map: stored frames that look alike or should be near, reconstructed
together with the chunk's, aligned with both and believed only if the images agree there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.mapping.alignment import align
from scal3r_ros.mapping.loop_closure import LoopCandidate, loop_window
from scal3r_ros.mapping.loop_records import NoRecord, reduce_prediction
from scal3r_ros.mapping.place_check import PlaceAgreement, place_agreement
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.pipeline.mapping_state import MappingState
from scal3r_ros.reconstruct.interface import (
    OutOfDeviceMemory,
    ReconstructionFailed,
    Reconstructor,
)
from scal3r_ros.records import Chunk, ChunkPrediction

_NEAR = (0.7, np.radians(50.0))
"""A stored view is near: distance in scene distances, angle between the directions of view."""


@dataclass(frozen=True)
class Fix:
    """A place that was found for a chunk, or why one that was tried is refused."""

    candidate: LoopCandidate
    refused: str = ""
    S_map_chunk: Sim3 = Sim3.identity()
    sigma: np.ndarray | None = None
    """(3,) translation in the chunk's units, rotation, log-scale."""
    agreement: PlaceAgreement = PlaceAgreement(0.0, 0.0, 0.0)

    @property
    def name(self) -> str:
        return f"frame {self.candidate.match_id} of the map"


class MapSearch:
    """Reads a map and never changes it; the reconstructor's memory is only read."""

    def __init__(self, config: Config, reconstructor: Reconstructor, state: MappingState) -> None:
        self._config, self._reconstructor, self._state = config, reconstructor, state
        parts = state.live_map.graph.components()
        origin = next(iter(parts.values()), None)
        known = state.live_map.trajectory
        self._ids = np.array(
            [i for i in known.frame_ids if self._usable(known.chunk_of(i), parts, origin)], np.int64
        )
        self._T_map_camera = known.matrices(state.live_map.graph.nodes, self._ids.tolist())

    def __len__(self) -> int:
        """Stored frames that can be compared with; those of unconnected parts are not among
        them."""
        return len(self._ids)

    def typical_scale(self) -> float:
        """Map units per unit of a chunk, the median of the map's."""
        return float(np.median([S.scale for S in self._state.live_map.graph.nodes.values()]))

    def alike(self, prediction: ChunkPrediction) -> list[LoopCandidate]:
        """Stored frames that look like the chunk's, the most alike first."""
        if prediction.descriptors is None or not len(self):
            return []
        usable = set(self._ids.tolist())
        found = self._state.loops.detector.alike(prediction.frame_ids, prediction.descriptors)
        least = self._config.localisation.threshold
        found = [c for c in found if c.similarity > least and c.match_id in usable]
        return _spread(found, self._config.loop.nms_window)

    def near(
        self, prediction: ChunkPrediction, S_map_chunk: Sim3, wide: float = 1.0
    ) -> list[LoopCandidate]:
        """The stored frame whose view should be most alike if the chunk lies there; none if no view
        is near. `wide` multiplies what is near."""
        row = len(prediction.frame_ids) // 2
        T = S_map_chunk.move_pose(prediction.T_chunk_camera[row])
        if not len(self):
            return []
        distance = np.linalg.norm(self._T_map_camera[:, :3, 3] - T[:3, 3], axis=1)
        distance = distance / (wide * _NEAR[0] * scene_distance(prediction, S_map_chunk))
        cosine = np.clip(self._T_map_camera[:, :3, 2] @ T[:3, 2], -1.0, 1.0)
        angle = np.arccos(cosine) / (wide * _NEAR[1])
        best = int(np.hypot(distance, angle).argmin())
        if distance[best] > 1.0 or angle[best] > 1.0:
            return []
        return [LoopCandidate(prediction.frame_ids[row], int(self._ids[best]), 1.0)]

    def test(self, candidate: LoopCandidate, chunk: Chunk, prediction: ChunkPrediction) -> Fix:
        """Reconstruct both places together; where does the chunk lie if they are one? The
        prediction of the chunk is on the reduced grid of the records."""
        search, length = self._state.loops, self._config.loop.window
        end = self._state.live_map.trajectory.chunk_of(candidate.match_id)
        try:
            stored = loop_window(candidate.match_id, search.records.frame_ids(end), length)
            seen = loop_window(candidate.frame_id, prediction.frame_ids, length)
            old = search.records.frames(end, stored)
            new = tuple(frame for frame in chunk.frames if frame.id in seen)
            together = self._reconstruct(chunk, (*old, *new))
            return self._judge(candidate, end, stored, seen, together, prediction)
        except (NoRecord, ReconstructionFailed, OutOfDeviceMemory) as failure:
            return Fix(candidate, str(failure))

    def _reconstruct(self, chunk: Chunk, frames: Sequence) -> ChunkPrediction:
        both = Chunk(
            chunk.index, chunk.session, tuple(frames), kind="loop", first_size=chunk.first_size
        )
        return self._reconstructor.reconstruct(both, contribute=False)

    def _judge(
        self,
        candidate: LoopCandidate,
        end: int,
        stored: tuple[int, ...],
        seen: tuple[int, ...],
        together: ChunkPrediction,
        prediction: ChunkPrediction,
    ) -> Fix:
        """Gates in the order of their cost: both alignments, then pixels."""
        config, both = self._config, []
        recorded = self._state.loops.records
        sides = (
            ("the map", recorded.prediction(end, [i for i in stored if i in together.frame_ids])),
            ("the chunk", prediction.of_frames(set(seen) & set(together.frame_ids))),
        )  # fmt: skip
        for name, side in sides:
            alignment = align(side, reduce_prediction(together, side.frame_ids), config.alignment)
            if not alignment.accepted:
                return Fix(candidate, f"no alignment with {name}: {alignment.failure}")
            both.append(alignment)
        agreement = place_agreement(together, stored, seen)
        wanted = config.localisation
        reason = agreement.refusal(wanted.min_likeness, wanted.min_depth_agreement)
        S_end_chunk = both[0].S_previous_current @ both[1].S_previous_current.inverse()
        units = np.array([float(both[1].S_previous_current.scale), 1.0, 1.0])
        sigma = np.sqrt((both[0].sigma * units) ** 2 + (both[1].sigma * units) ** 2)
        S_map_chunk = self._state.live_map.graph.nodes[end] @ S_end_chunk
        return Fix(candidate, reason, S_map_chunk, sigma, agreement)

    def _usable(self, chunk_index: int, parts, origin: int | None) -> bool:
        return parts[chunk_index] == origin and chunk_index in self._state.loops.records


def scene_distance(prediction: ChunkPrediction, S_map_chunk: Sim3) -> float:
    """Typical depth of a chunk, map units."""
    return float(np.nanmedian(prediction.depth)) * float(S_map_chunk.scale)


def _spread(found: Sequence[LoopCandidate], window: int) -> list[LoopCandidate]:
    """The best first, without those near a better one."""
    chosen: list[LoopCandidate] = []
    for c in sorted(found, key=lambda c: (-c.similarity, c.frame_id)):
        if all(abs(c.match_id - other.match_id) > window for other in chosen):
            chosen.append(c)
    return chosen
