"""The method: frames in, one correct and bounded map out. Live and offline use this class."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.mapping.chunking import Chunker
from scal3r_ros.mapping.parallax import ParallaxGate
from scal3r_ros.mapping.point_map import PointCloud
from scal3r_ros.pipeline.assembly import ChunkOutline, Joined, MapAssembly
from scal3r_ros.pipeline.loop_search import LoopSearch, LoopTrial
from scal3r_ros.pipeline.reconstructor import (
    OutOfDeviceMemory,
    ReconstructionFailed,
    Reconstructor,
)
from scal3r_ros.records import (
    Chunk,
    ChunkPrediction,
    Event,
    Frame,
    MapUpdate,
    ScaleEstimate,
    TrajectoryPose,
)

Outcome = ChunkPrediction | ReconstructionFailed


@dataclass(frozen=True)
class GraphView:
    """The pose graph to look at."""

    chunks: tuple[int, ...]
    positions: np.ndarray
    """(K, 3) middle camera of each chunk, map frame."""
    edges: tuple[tuple[int, int, str], ...]
    """Chunk, chunk, kind: `sequence`, `odometry` or `loop`."""
    parts: tuple[int, ...]
    """For each chunk the connected part of the map that it belongs to; 0 holds the origin."""


class Mapper:
    """Frames that passed the frame gate, in order of time, become a map."""

    def __init__(
        self, config: Config, reconstructor: Reconstructor, records: str | Path | None = None
    ) -> None:
        """`records` is the folder for what loops need of old frames; by default a temporary one."""
        self.config, self.reconstructor = config, reconstructor
        self._temporary = None if records else tempfile.TemporaryDirectory(prefix="scal3r_")
        self._folder = Path(records or self._temporary.name)
        self._start()

    def _start(self) -> None:
        self.counters: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.next_frame_id = 0
        self._parallax = ParallaxGate(self.config.gate)
        self._chunker = Chunker(self.config.chunk)
        self._waiting: list[Chunk] = []
        self._assembly = MapAssembly(self.config)
        self._loops = LoopSearch(self.config.loop, self.config.alignment, self._folder)
        self._history: list[tuple[ChunkOutline, LoopTrial | None]] = []

    def add(self, frame: Frame, starts_session: bool = False) -> list[MapUpdate]:
        """Take the next frame; returns what changed, usually nothing until a chunk is full."""
        updates = self.start_session() if starts_session else []
        self.next_frame_id = max(self.next_frame_id, frame.id + 1)
        self.counters["frames"] += 1
        if not self._parallax.admit(frame.rgb, frame.stamp_ns):
            self.counters["no_parallax"] += 1
            return updates
        chunk = self._chunker.push(frame)
        return updates + (self._enqueue(chunk) if chunk else [])

    def flush(self) -> list[MapUpdate]:
        """Map what is waiting; the next frame continues the chain."""
        updates = []
        while chunk := self._chunker.flush():
            updates += self._enqueue(chunk)
        while self._waiting:
            updates += self._run_round()
        return updates + self._close_chain()

    def start_session(self) -> list[MapUpdate]:
        """End the chain of chunks: the next frame shares nothing with those before."""
        updates = self.flush()
        self._chunker.start_session()
        self._parallax.reset()
        self.counters["session_started"] += 1
        return updates

    def finalize(self) -> list[MapUpdate]:
        """With memory.mode finalize: map all chunks again as if the memory had known all of them
        from the start."""
        updates = self.flush()
        predictions = self.reconstructor.finalize()
        revision, events = self._assembly.revision, []
        references = self._assembly.references
        self._assembly = MapAssembly(self.config)
        self._assembly.references, self._assembly.revision = references, revision
        for (outline, trial), prediction in zip(self._history, predictions):
            if isinstance(prediction, ReconstructionFailed):
                events.append(self._failed(outline.index, prediction))
                self._assembly.close()
            elif trial is None:
                events += self._assembly.join(outline, prediction).events
            else:
                self._tie(trial, prediction, outline.index)
        self._assembly.close()
        self._assembly.correct()
        return [*updates, self._update(self._history[-1][0], Joined(), events, corrected=True)]

    def reset(self) -> None:
        """Forget the map and the memory."""
        self._loops.records.clear()
        self.reconstructor.reset()
        references = self._assembly.references
        self._start()
        self._assembly.references.T_base_camera = references.T_base_camera

    def observe_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None:
        """A pose (4, 4) of the body in metres, for scale and to bridge failed alignments."""
        self._assembly.references.scale.observe_odometry(stamp_ns, T_odom_base)

    def observe_gravity(self, stamp_ns: int, up_camera: np.ndarray) -> None:
        """Accelerometer at rest (3,), in the camera's optical frame, for map.alignment imu."""
        self._assembly.references.observe_gravity(stamp_ns, up_camera)

    def observe_depth(self, stamp_ns: int, metres: np.ndarray) -> None:
        """Measured depth (H, W) of the frame with this stamp, for scale.source depth."""
        self._assembly.references.observe_depth(stamp_ns, metres)

    def set_camera_mount(self, T_base_camera: np.ndarray) -> None:
        """Where the camera sits on the body whose odometry is observed."""
        self._assembly.references.T_base_camera = np.asarray(T_base_camera, dtype=np.float64)

    @property
    def map_revision(self) -> int:
        return self._assembly.revision

    @property
    def scale(self) -> ScaleEstimate:
        return self._assembly.references.scale.estimate

    @property
    def points_count(self) -> int:
        return len(self._assembly.points)

    @property
    def nbytes(self) -> int:
        """Bytes of the map's points."""
        return self._assembly.points.nbytes

    def trajectory(self) -> tuple[TrajectoryPose, ...]:
        """All poses at the present revision, in order of time."""
        graph = self._assembly.graph
        return self._assembly.trajectory.poses(graph.nodes, None, graph.covariances())

    def cloud(self, max_points: int | None = None) -> PointCloud:
        """All points at the present revision."""
        return self._assembly.points.export(max_points)

    def chunk_scale(self, chunk_index: int) -> float:
        """Map units per unit of the chunk's own coordinates, at the present revision."""
        return float(self._assembly.graph.nodes[chunk_index].scale)

    def graph(self) -> GraphView:
        """The pose graph at the present revision."""
        graph = self._assembly.graph
        parts = graph.components() if graph.nodes else {}
        positions = [S.translation for S in graph.nodes.values()]
        return GraphView(
            tuple(graph.nodes),
            np.array(positions, dtype=np.float64).reshape(-1, 3),
            tuple((edge.a, edge.b, edge.kind) for edge in graph.edges),
            tuple(parts[index] for index in graph.nodes),
        )

    def _enqueue(self, chunk: Chunk) -> list[MapUpdate]:
        self._waiting.append(chunk)
        return self._run_round() if len(self._waiting) >= self.reconstructor.round_size else []

    def _run_round(self) -> list[MapUpdate]:
        count = self.reconstructor.round_size
        chunks, self._waiting = self._waiting[:count], self._waiting[count:]
        started = time.perf_counter()
        chunks, outcomes, events = self._reconstruct(chunks)
        self.seconds["reconstruct"] += time.perf_counter() - started
        updates = []
        for chunk, outcome in zip(chunks, outcomes):
            updates.append(self._integrate(chunk, outcome, events))
            events = []
        return updates

    def _reconstruct(
        self, chunks: list[Chunk]
    ) -> tuple[list[Chunk], Sequence[Outcome], list[Event]]:
        """One round; a single chunk that does not fit the device is made shorter."""
        events = []
        while True:
            try:
                return chunks, self.reconstructor.reconstruct_round(chunks), events
            except OutOfDeviceMemory as error:
                smallest = self.config.chunk.overlap + 1
                if len(chunks) > 1 or len(chunks[0].frames) <= smallest:
                    raise
                size = max(len(chunks[0].frames) * 3 // 4, smallest)
                chunks = [self._chunker.shrink(chunks[0], size)]
                text = f"{error}; chunks have {size} frames from now on"
                events.append(self._event("chunk_shrunk", text, chunks[0].index))

    def _integrate(self, chunk: Chunk, outcome: Outcome, events: list[Event]) -> MapUpdate:
        """Align, own, fuse, look for loops, correct, scale: one chunk into the map."""
        outline = ChunkOutline.of(chunk)
        self._history.append((outline, None))
        started = time.perf_counter()
        if isinstance(outcome, ReconstructionFailed):
            self._history.pop()
            events = [*events, self._failed(chunk.index, outcome)]
            return self._update(outline, self._assembly.close(), events)
        self.counters["chunks"] += 1
        self.counters["frames_missing"] += len(outcome.missing_ids)
        joined = self._assembly.join(outline, outcome)
        self._loops.record(outcome, {frame.id: frame for frame in chunk.frames})
        self.seconds["align_and_fuse"] += time.perf_counter() - started
        return self._finish(outline, joined, events, dict(outcome.timings))

    def _close_chain(self) -> list[MapUpdate]:
        """Confirm the provisional frames at the end of a chain."""
        last = self._assembly.open
        if last is None:
            return []
        return [self._finish(last.outline, self._assembly.close(), [], {})]

    def _finish(
        self, outline: ChunkOutline, joined: Joined, events: list[Event], timings: dict
    ) -> MapUpdate:
        """Loops and scale after a change, and the update that tells about all of it."""
        started = time.perf_counter()
        loops, loop_events = self._close_loops(outline, joined)
        self.seconds["loops"] += time.perf_counter() - started
        metric = self._fix_scale()
        events = [*events, *joined.events, *loop_events]
        for event in joined.events:
            self.counters[event.name] += 1
        return self._update(outline, joined, events, bool(loops) or metric, loops, timings)

    def _close_loops(
        self, outline: ChunkOutline, joined: Joined
    ) -> tuple[list[tuple[int, int]], list[Event]]:
        accepted, events = [], []
        for trial in self._loops.trials(joined, self._assembly):
            index = self._chunker.next_index()
            chunk = self._loops.chunk(trial, index, outline.session)
            try:
                prediction = self.reconstructor.reconstruct(
                    chunk, contribute=self.config.memory.loop_contributes
                )
            except ReconstructionFailed as failure:
                events.append(self._event("loop_rejected", f"{_name(trial)}: {failure}", index))
                continue
            self._history.append((ChunkOutline.of(chunk), trial))
            reason = self._tie(trial, prediction, index)
            name = "loop_closed" if not reason else "loop_rejected"
            events.append(self._event(name, f"{_name(trial)} {reason}".strip(), index))
            if not reason:
                accepted.append((trial.candidate.match_id, trial.candidate.frame_id))
        if accepted:
            self._assembly.correct()
        return accepted, events

    def _tie(self, trial: LoopTrial, prediction: ChunkPrediction, index: int) -> str:
        """Add the edges that a loop chunk proves; why not, or empty."""
        verdicts = self._loops.judge(trial, prediction, self._assembly)
        for verdict in verdicts:
            if verdict.accepted:
                self._assembly.graph.add_edge(
                    verdict.a, verdict.b, verdict.S_a_b, "loop", verdict.sigma
                )
        return "" if verdicts[-1].accepted else verdicts[-1].reason

    def _fix_scale(self) -> bool:
        scale = self._assembly.references.scale
        if not scale.ready:
            return False
        self._assembly.become_metric(scale.freeze().value)
        return True

    def _failed(self, index: int, failure: ReconstructionFailed) -> Event:
        return self._event("chunk_failed", f"chunk {index}: {failure}", index)

    def _event(self, name: str, text: str, index: int) -> Event:
        self.counters[name] += 1
        return Event(name, text, index)

    def _update(
        self,
        outline: ChunkOutline,
        joined: Joined,
        events: Sequence[Event],
        corrected: bool = False,
        loops: Sequence[tuple[int, int]] = (),
        timings: dict | None = None,
    ) -> MapUpdate:
        assembly = self._assembly
        covariances = assembly.graph.covariances()
        ids = None if corrected else joined.frame_ids
        return MapUpdate(
            map_revision=assembly.revision,
            chunk_index=outline.index,
            session=outline.session,
            poses=assembly.trajectory.poses(assembly.graph.nodes, ids, covariances),
            points=joined.cloud.points,
            colors=joined.cloud.colors,
            confidence=joined.cloud.confidence,
            corrected=corrected,
            scale=self.scale,
            loops=tuple(loops),
            events=tuple(events),
            timings=timings or {},
        )


def _name(trial: LoopTrial) -> str:
    candidate = trial.candidate
    return (
        f"frames {candidate.match_id} and {candidate.frame_id} "
        f"(similarity {candidate.similarity:.2f})"
    )
