"""A mapper that can leave its map as it is and tell where in it the camera is."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.mapping.alignment import least_covariance
from scal3r_ros.mapping.parallax import ParallaxGate
from scal3r_ros.mapping.trajectory import pose_covariance
from scal3r_ros.pipeline.chunk_queue import ChunkQueue
from scal3r_ros.pipeline.localiser import FOUND, LOST, Guess, Localiser, PlacedChunk
from scal3r_ros.pipeline.map_search import scene_distance
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.pipeline.mapping_state import MappingState
from scal3r_ros.pipeline.progress import Progress
from scal3r_ros.reconstruct.interface import (
    MemoryState,
    Outcome,
    ReconstructionFailed,
    Reconstructor,
    attempt,
    events_of,
)
from scal3r_ros.records import Chunk, ChunkPrediction, Event, Frame, MapUpdate, TrajectoryPose

MAPPING, LOCALISATION = "mapping", "localisation"
_KEPT_POSES = 10_000
UNKNOWN = 1e6
"""Variance of a pose that is not known."""


@dataclass(frozen=True)
class Whereabouts:
    """Whether the camera's place is known, since when, and why."""

    state: str = LOST
    """`lost` or `localised`."""
    since_ns: int = 0
    """Stamp of the image with which this began; 0 before the first."""
    reason: str = "no chunk has been compared with the map yet"
    compared: str = ""
    """What was compared last, and with what result."""
    checked_ns: int = 0
    """Stamp of the newest image that was tied to the map itself; 0 if none was."""
    stamp_ns: int = 0
    """Stamp of the newest image that this tells about."""
    T_map_camera: np.ndarray | None = None
    """(4, 4) newest pose that was believed; None before the first."""
    told_ns: int = 0
    """Stamp of the image of that pose."""
    covariance: np.ndarray = field(default_factory=lambda: UNKNOWN * np.eye(6))
    """(6, 6) of that pose in the map frame when it was told."""
    scene: float = 0.0
    """Typical distance of what the camera sees there, map units."""

    def covariance_at(self, stamp_ns: int) -> np.ndarray:
        """(6, 6) of the pose as the camera's at a later time: grows while the camera is lost, which
        may be carried a scene's distance and a radian in every second."""
        if self.state == FOUND or self.T_map_camera is None:
            return self.covariance
        seconds = max(stamp_ns - self.told_ns, 0) * 1e-9
        moved = np.repeat([self.scene, 1.0], 3) * seconds
        return np.minimum(self.covariance + np.diag(moved**2), UNKNOWN)


class ReadOnlyMemory:
    """Passes chunks on to a reconstructor, whose memory takes none of them in. A chunk stands
    alone: what the memory knows of the frames before is the end of the map."""

    round_size: int | None = 1

    def __init__(self, inner: Reconstructor) -> None:
        self.name = inner.name
        self._inner = inner

    def reconstruct(self, chunk: Chunk, contribute: bool = False) -> ChunkPrediction:
        return self._inner.reconstruct(replace(chunk, overlap_ids=()), contribute=False)

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        return [attempt(self, chunk) for chunk in chunks]

    def take_events(self) -> list[Event]:
        return events_of(self._inner)

    def state(self) -> MemoryState:
        return self._inner.state()

    def reset(self) -> None:
        raise TypeError("the memory is only read")

    def restore(self, state: MemoryState) -> None:
        raise TypeError("the memory is only read")


class LocalisingMapper(Mapper):
    """In mode `mapping` a mapper; in mode `localisation` frames are placed in the map, which stays
    bit for bit as it is, as does the reconstructor's memory."""

    def __init__(
        self, config: Config, reconstructor: Reconstructor, records: str | Path | None = None
    ) -> None:
        super().__init__(config, reconstructor, records)
        self._stream: LocalisedStream | None = None
        self._session_due = False
        """Whether frames that were not mapped lie between the next one and the map's last."""

    @property
    def mode(self) -> str:
        return MAPPING if self._stream is None else LOCALISATION

    @property
    def whereabouts(self) -> Whereabouts | None:
        """Where the camera is in the map; None in mode mapping."""
        return None if self._stream is None else self._stream.whereabouts

    def set_mode(self, mode: str) -> None:
        """Map on, or only tell where the camera is; frames that wait to be mapped wait until the
        mode is `mapping` again. Raises `ValueError` where that is not possible, and then nothing
        changes."""
        if mode not in (MAPPING, LOCALISATION):
            raise ValueError(f"mode is {MAPPING} or {LOCALISATION}, found {mode!r}")
        if mode == self.mode:
            return
        if self._stream is not None:
            self._leave()
            return
        if self.config.memory.mode == "finalize":
            raise ValueError(
                "memory.mode finalize keeps every chunk for a second pass, so it cannot only "
                "localise; set memory.mode to stream"
            )
        self._enter()

    def guess(self, guess: Guess) -> None:
        """Where somebody believes the newest camera to be; only in mode localisation."""
        if self._stream is None:
            raise ValueError("mode is mapping: the map defines where the camera is")
        self._stream.localiser.guess(guess)

    def add(self, frame: Frame, starts_session: bool = False) -> list[MapUpdate]:
        if self._stream is None:
            due, self._session_due = self._session_due, False
            return super().add(frame, starts_session or due)
        return self._stream.add(frame, starts_session)

    def flush(self) -> list[MapUpdate]:
        return super().flush() if self._stream is None else self._stream.flush()

    def start_session(self) -> list[MapUpdate]:
        return super().start_session() if self._stream is None else self._stream.end_chain()

    def finalize(self, progress: Progress | None = None) -> list[MapUpdate]:
        self._require_mapping("finalize")
        return super().finalize(progress)

    def save(self, folder: str | Path) -> list[Event]:
        """As `Mapper.save`; in mode localisation the map and memory that were there before."""
        if self._stream is None:
            return super().save(folder)
        with self._stream.memory_of_the_map():
            return super().save(folder)

    def take_updates(self) -> list[MapUpdate]:
        return super().take_updates() if self._stream is None else self._stream.take_updates()

    def reset(self) -> None:
        """Forget the map and the memory; a mode that needs a map ends."""
        if self._stream is not None:
            self._leave()
        super().reset()

    def load(self, folder: str | Path) -> list[Event]:
        """As `Mapper.load`; in mode localisation the camera is then looked for in that map."""
        localising = self._stream is not None
        if localising:
            self._leave()
        try:
            return super().load(folder)
        finally:
            if localising:
                self._enter()

    @property
    def connected(self) -> bool:
        if self._stream is None:
            return super().connected
        return self._stream.whereabouts.state == FOUND

    @property
    def next_frame_id(self) -> int:
        return super().next_frame_id if self._stream is None else self._stream.next_frame_id

    @property
    def last_stamp_ns(self) -> int | None:
        return super().last_stamp_ns if self._stream is None else self._stream.last_stamp_ns

    @property
    def unmapped(self) -> int:
        return super().unmapped if self._stream is None else 0

    def newest_poses(self, count: int) -> tuple[TrajectoryPose, ...]:
        """Of the camera; in mode localisation those that were told since it began."""
        if self._stream is None:
            return super().newest_poses(count)
        return self._stream.newest_poses(count)

    def chunk_scale(self, chunk_index: int) -> float:
        placed = None if self._stream is None else self._stream.localiser.newest
        if placed is not None and placed.chunk.index == chunk_index:
            return float(placed.S_chain_chunk.scale)
        return super().chunk_scale(chunk_index)

    def _enter(self) -> None:
        self._stream = LocalisedStream(self.config, self.reconstructor, self._steps.state)

    def _leave(self) -> None:
        assert self._stream is not None
        self._stream.close()
        self._stream, self._session_due = None, True

    def _require_mapping(self, what: str) -> None:
        if self._stream is not None:
            raise ValueError(f"{what} changes the map; set the mode to {MAPPING} first")


class LocalisedStream:
    """Frames of one time in mode localisation, and what is known of the camera's place."""

    def __init__(self, config: Config, reconstructor: Reconstructor, state: MappingState) -> None:
        self._config, self._reconstructor, self._map = config, reconstructor, state
        self._saved: MemoryState | None = None
        if config.localisation.memory == "none":
            self._saved = reconstructor.state()
            reconstructor.reset()
        self._reader = ReadOnlyMemory(reconstructor)
        self.localiser = Localiser(config, self._reader, state, state.live_map.scale_and_level)
        self._queue = ChunkQueue(config.chunk)
        before = state.chunks.chunker
        self._queue.chunker.restore(
            [], 0, before.session + 1, before.upcoming_index, before.first_size
        )
        self._parallax = ParallaxGate(config.gate)
        self.next_frame_id = state.next_frame_id
        self.last_stamp_ns: int | None = None
        self.counters: Counter[str] = Counter()
        self.whereabouts = Whereabouts()
        if not len(self.localiser.search):
            self.whereabouts = replace(self.whereabouts, reason=_NOTHING_STORED)
        self._poses: deque[TrajectoryPose] = deque(maxlen=_KEPT_POSES)
        self._made: list[MapUpdate] = []

    def close(self) -> None:
        """Give the memory back as it was."""
        if self._saved is not None:
            self._reconstructor.restore(self._saved)

    @contextmanager
    def memory_of_the_map(self) -> Iterator[None]:
        """Inside the block the reconstructor remembers what the map was made with."""
        if self._saved is None:
            yield
            return
        self._reconstructor.restore(self._saved)
        try:
            yield
        finally:
            self._reconstructor.reset()

    def add(self, frame: Frame, starts_session: bool) -> list[MapUpdate]:
        """Take the next frame; tells the camera's poses when a chunk is full."""
        if starts_session:
            self.end_chain(told=False)
        self.next_frame_id, self.last_stamp_ns = frame.id + 1, frame.stamp_ns
        if self._parallax.admit(frame.rgb, frame.stamp_ns):
            self._queue.push(frame)
            self._place_waiting()
        return self.take_updates()

    def flush(self) -> list[MapUpdate]:
        """Place every frame that waits."""
        while self._queue.waiting or self._queue.cut_rest():
            self._place_waiting()
        return self.take_updates()

    def end_chain(self, told: bool = True) -> list[MapUpdate]:
        """A gap: the next frame may be taken anywhere."""
        updates = self.flush() if told else []
        newest = self.localiser.newest
        if not told:
            self._queue.waiting.clear()
        self._queue.chunker.start_session()
        self._parallax.reset()
        if newest is not None:
            events = self.localiser.lose("the stream of images had a gap", newest.chunk.index)
            self._tell(newest.chunk, (), events)
        return updates + (self.take_updates() if told else [])

    def take_updates(self) -> list[MapUpdate]:
        made, self._made = self._made, []
        return made

    def newest_poses(self, count: int) -> tuple[TrajectoryPose, ...]:
        return tuple(self._poses)[-count:]

    def _place_waiting(self) -> None:
        while self._queue.waiting:
            for item in self._queue.reconstruct_round(self._reader):
                self._place(item.chunk, item.outcome, item.events)

    def _place(self, chunk: Chunk, outcome: Outcome, events: Iterable[Event]) -> None:
        told = list(events)
        placed: tuple[PlacedChunk, ...] = ()
        if isinstance(outcome, ReconstructionFailed):
            told.append(Event("chunk_failed", f"chunk {chunk.index}: {outcome}", chunk.index))
            told += self.localiser.lose(
                f"the newest images could not be reconstructed: {outcome}", chunk.index
            )
        else:
            step = self.localiser.take(chunk, outcome)
            placed, told = step.placed, [*told, *step.events]
        self._tell(chunk, placed, told)

    def _tell(self, chunk: Chunk, placed: Sequence[PlacedChunk], events: Sequence[Event]) -> None:
        """One update about a chunk, and what is known of the camera now."""
        self.counters.update(event.name for event in events)
        poses = tuple(pose for item in placed for pose in _poses(item))
        self._follow(chunk.frames[-1].stamp_ns, poses, events)
        known = {pose.frame_id for pose in self._poses}
        self._poses.extend(pose for pose in poses if pose.frame_id not in known)
        live_map = self._map.live_map
        self._made.append(
            MapUpdate(
                map_revision=live_map.revision,
                chunk_index=chunk.index,
                session=chunk.session,
                poses=poses,
                points=np.zeros((0, 3), np.float32),
                colors=np.zeros((0, 3), np.uint8),
                confidence=np.zeros(0, np.float32),
                corrected=False,
                scale=live_map.scale,
                events=tuple(events),
            )
        )

    def _follow(
        self, stamp_ns: int, poses: Sequence[TrajectoryPose], events: Sequence[Event]
    ) -> None:
        before, state = self.whereabouts, self.localiser.state
        tried = self.localiser.tried
        compared = "; ".join(f"{fix.name}: {fix.refused or 'seen'}" for fix in tried)
        now = replace(before, compared=compared, stamp_ns=stamp_ns)
        if state != before.state or not before.since_ns:
            reason = next((e.message for e in events if e.name in ("lost", "localised")), "")
            reason = reason or before.reason
            now = replace(now, state=state, since_ns=stamp_ns, reason=reason)
        if state == FOUND:
            placed = self.localiser.newest
            assert placed is not None
            newest = max(poses, key=lambda pose: pose.frame_id)
            now = replace(
                now,
                T_map_camera=newest.T_map_camera,
                told_ns=newest.stamp_ns,
                covariance=newest.covariance,
                scene=scene_distance(placed.prediction, placed.S_chain_chunk),
                checked_ns=now.checked_ns if self.localiser.unchecked else stamp_ns,
            )
        self.whereabouts = now


_NOTHING_STORED = (
    "the map holds no images to compare with; map with loop.enabled and save again, or load a map"
)


def _poses(item: PlacedChunk) -> list[TrajectoryPose]:
    """Of all frames of a chunk whose place in the map is known."""
    prediction, S = item.prediction, item.S_chain_chunk
    within = least_covariance(prediction)
    summary = item.chunk.summary
    stamps = dict(zip(summary.frame_ids, summary.stamps_ns))
    found = []
    for row, frame_id in enumerate(prediction.frame_ids):
        T = prediction.T_chunk_camera[row]
        centre = T[:3, 3]
        found.append(
            TrajectoryPose(
                frame_id,
                stamps[frame_id],
                S.move_pose(T),
                pose_covariance(within, S, centre, item.covariance),
                1.0,
                item.chunk.index,
                False,
                pose_covariance(within, S, centre, None),
            )
        )
    return found
