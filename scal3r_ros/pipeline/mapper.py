"""The method: frames in, one correct and bounded map out. Live and offline use this class."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.mapping.loop_records import NoRecord
from scal3r_ros.mapping.point_map import PointCloud
from scal3r_ros.pipeline import save
from scal3r_ros.pipeline.chunk_queue import Reconstructed
from scal3r_ros.pipeline.live_map import GraphView, LiveMap, MapChange
from scal3r_ros.pipeline.loops import LoopTrial
from scal3r_ros.pipeline.mapping_state import MappingState
from scal3r_ros.reconstruct.interface import (
    Finalizes,
    OutOfDeviceMemory,
    ReconstructionFailed,
    Reconstructor,
)
from scal3r_ros.records import (
    ChunkPrediction,
    ChunkSummary,
    Event,
    Frame,
    MapUpdate,
    ScaleEstimate,
    TrajectoryPose,
)
from scal3r_ros.scratch import ScratchFolder
from scal3r_ros.stopwatch import timed


class Mapper:
    """Frames that passed the frame gate, in order of time, become a map."""

    def __init__(
        self, config: Config, reconstructor: Reconstructor, records: str | Path | None = None
    ) -> None:
        """`records` is a folder of this mapper alone for what loops need of old frames; by default
        a temporary one."""
        self.config, self.reconstructor = config, reconstructor
        self._temporary: ScratchFolder | None = None
        if not records:
            self._temporary = ScratchFolder("scal3r_")
            records = self._temporary.path
        self._folder = Path(records)
        save.remove_files(self._folder)  # of a mapper that was killed
        self._state = MappingState.empty(config, self._new_records())
        self._files = save.new_files()
        self.consistent = True
        """False while a chunk is half integrated: an interrupted map of that kind is not saved."""
        self._made: list[MapUpdate] = []

    def add(self, frame: Frame, starts_session: bool = False) -> list[MapUpdate]:
        """Take the next frame; tells what changed, usually nothing until a chunk is full.

        If this or another call fails after something has changed, `take_updates` tells it.
        """
        state = self._state
        with self._changing():
            self._map_full_rounds()  # one can be left over from an interrupt
            if starts_session:
                self._end_chain()
            state.next_frame_id = max(state.next_frame_id, frame.id + 1)
            state.last_stamp_ns = frame.stamp_ns
            state.counters["frames"] += 1
            if state.parallax.admit(frame.rgb, frame.stamp_ns):
                state.chunks.push(frame)
                self._map_full_rounds()
            else:
                state.counters["no_parallax"] += 1
        return self.take_updates()

    def flush(self) -> list[MapUpdate]:
        """Map what is waiting and confirm provisional poses; the next frame continues the chain."""
        with self._changing():
            self._map_rest()
        return self.take_updates()

    def start_session(self) -> list[MapUpdate]:
        """End the chain of chunks: the next frame shares nothing with those before."""
        with self._changing():
            self._end_chain()
        return self.take_updates()

    def finalize(self) -> list[MapUpdate]:
        """With memory.mode finalize: map all chunks again as if the memory had known all of them
        from the start."""
        self._made += self.flush()
        state = self._state
        if not state.history.empty:
            self._files = save.new_files()  # what is recorded of the chunks changes
            outcomes = cast(Finalizes, self.reconstructor).finalize()
            records = self._new_records()
            again = state.history.build_again(outcomes, state.live_map, state.loops, records)
            shutil.rmtree(state.loops.records.folder, ignore_errors=True)
            state.live_map, state.loops = again.live_map, again.loops
            self._tell(state.history.last, MapChange(), again.events, corrected=True)
        return self.take_updates()

    def take_updates(self) -> list[MapUpdate]:
        """What changed and was not told yet."""
        made, self._made = self._made, []
        return made

    def reset(self) -> None:
        """Forget the map and the memory."""
        self.reconstructor.reset()
        self._replace(MappingState.empty(self.config, self._new_records()))

    def save(self, folder: str | Path) -> None:
        """Save everything needed to go on later in the same map frame; atomic.

        Raises `RuntimeError` if an interrupt left a chunk half integrated.
        """
        if not self.consistent:
            raise RuntimeError("a chunk is half integrated; go on from an earlier save")
        save.write_state(self._state, self.reconstructor, Path(folder), self._files)

    def load(self, folder: str | Path) -> list[Event]:
        """Continue a saved map; raises `BadMapFile`, or `ValueError` for another network's memory,
        and then nothing has changed. Returns what could not be taken over."""
        records = self._new_records()
        try:
            state = save.read_state(self.config, self.reconstructor, Path(folder), records)
        except BaseException:
            shutil.rmtree(records, ignore_errors=True)
            raise
        self._replace(state)
        events = [
            Event("loop_record_damaged", f"{text}; no loop will be found there")
            for text in state.loops.records.damaged
        ]
        self.counters.update(event.name for event in events)
        return events

    def observe_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None:
        """A pose (4, 4) of the body in metres, for scale and to bridge failed alignments."""
        self.live_map.scale_and_level.observe_odometry(stamp_ns, T_odom_base)

    def observe_gravity(self, stamp_ns: int, up_camera: np.ndarray) -> None:
        """Accelerometer at rest (3,), in the camera's optical frame, for map.alignment imu."""
        self.live_map.scale_and_level.observe_gravity(stamp_ns, up_camera)

    def observe_depth(self, stamp_ns: int, metres: np.ndarray) -> None:
        """Measured depth (H, W) of the frame with this stamp, for scale.source depth."""
        self.live_map.scale_and_level.observe_depth(stamp_ns, metres)

    def set_camera_mount(self, T_base_camera: np.ndarray) -> None:
        """Where the camera sits on the body whose odometry is observed; also after a reset."""
        mount = np.asarray(T_base_camera, dtype=np.float64)
        self.live_map.scale_and_level.T_base_camera = mount

    @property
    def live_map(self) -> LiveMap:
        """The map itself; it is another object after `reset`, `load` and `finalize`."""
        return self._state.live_map

    @property
    def counters(self) -> Counter[str]:
        """What has happened, by name."""
        return self._state.counters

    @property
    def seconds(self) -> Mapping[str, float]:
        """By stage of the method."""
        return self._state.seconds

    @property
    def next_frame_id(self) -> int:
        return self._state.next_frame_id

    @property
    def last_stamp_ns(self) -> int | None:
        return self._state.last_stamp_ns

    @property
    def unmapped(self) -> int:
        """Frames taken whose chunk is not finished yet; none after `flush`."""
        trajectory = self.live_map.trajectory
        return sum(frame.id not in trajectory for frame in self._state.chunks.untried)

    @property
    def map_revision(self) -> int:
        return self.live_map.revision

    @property
    def scale(self) -> ScaleEstimate:
        return self.live_map.scale

    @property
    def points_count(self) -> int:
        return len(self.live_map.points)

    @property
    def nbytes(self) -> int:
        """Bytes of the map's points."""
        return self.live_map.points.nbytes

    def trajectory(self) -> tuple[TrajectoryPose, ...]:
        """All poses at the present revision, in order of time."""
        return self.live_map.poses()

    def newest_poses(self, count: int) -> tuple[TrajectoryPose, ...]:
        """The last `count` poses; costs the same however long the trajectory is."""
        return self.live_map.poses(self.live_map.trajectory.newest(count))

    @property
    def connected(self) -> bool:
        """Whether the newest chunk hangs together with the one that holds the map's origin."""
        return self.live_map.graph.connected

    def cloud(self, max_points: int | None = None) -> PointCloud:
        """All points at the present revision."""
        return self.live_map.points.export(max_points)

    def chunk_scale(self, chunk_index: int) -> float:
        """Map units per unit of the chunk's own coordinates, at the present revision."""
        return self.live_map.chunk_scale(chunk_index)

    def latest(self) -> ChunkPrediction | None:
        """What was predicted for the last frames of the newest chunk."""
        newest = self.live_map.open
        return newest.prediction if newest else None

    def graph(self) -> GraphView:
        """The pose graph at the present revision."""
        return self.live_map.graph_view()

    def _map_full_rounds(self) -> None:
        while self._state.chunks.full(self.reconstructor):
            self._map_round()

    def _map_rest(self) -> None:
        """Every frame that waits; a device that is too small may give some back once more."""
        chunks = self._state.chunks
        self._map_full_rounds()
        while chunks.waiting or chunks.chunker.new_frames:
            while chunks.cut_rest():
                self._map_full_rounds()
            if chunks.waiting:
                self._map_round()
        self._confirm()

    def _end_chain(self) -> None:
        self._map_rest()
        self.live_map.close()
        self._state.chunks.chunker.start_session()
        self._state.parallax.reset()
        self._state.counters["session_started"] += 1

    def _map_round(self) -> None:
        """The chunks wait on if the network is interrupted, so that a saved map lost nothing."""
        changing, self.consistent = self.consistent, True
        with timed(self._state.seconds, "reconstruct"):
            done = self._state.chunks.reconstruct_round(self.reconstructor)
        self.consistent = changing
        failures = []
        for item in done:
            try:
                self._integrate(item)
            except Exception as failure:  # raised below: the rest of the round is not to be lost
                failures.append(failure)
        if failures:
            raise failures[0]

    def _integrate(self, item: Reconstructed) -> None:
        """Align, own and fuse one chunk; a failed one ends the chain."""
        state, chunk, outcome = self._state, item.chunk, item.outcome
        summary = chunk.summary
        state.history.add(summary)
        if isinstance(outcome, ReconstructionFailed):
            failed = Event("chunk_failed", f"chunk {chunk.index}: {outcome}", chunk.index)
            self._finish(summary, self.live_map.close(), [*item.events, failed], last=True)
            return
        state.counters["chunks"] += 1
        state.counters["frames_missing"] += len(outcome.missing_ids)
        with timed(state.seconds, "align_and_fuse"):
            change = self.live_map.join(summary, outcome)
        try:
            with timed(state.seconds, "record"):
                state.loops.record(outcome, {frame.id: frame for frame in chunk.frames})
        finally:  # the chunk is in the map, whether or not a later loop can use it
            self._finish(summary, change, item.events, outcome.timings)

    def _confirm(self) -> None:
        """Nothing more is to come soon: provisional poses stand, and no loop waits on."""
        last = self.live_map.open
        if last is not None and (last.waiting or self.live_map.graph.pending):
            self._finish(last.summary, self.live_map.confirm(), last=True)

    def _finish(
        self,
        summary: ChunkSummary,
        change: MapChange,
        events: Sequence[Event] = (),
        timings: Mapping[str, float] | None = None,
        last: bool = False,
    ) -> None:
        """Loops and scale after a change, and the update that tells about all of it; with `last`
        of a chain no loop waits on."""
        told, loops, corrected = [*events, *change.events], [], False
        try:
            with timed(self._state.seconds, "loops"):
                for trial in self._state.loops.trials(change, self.live_map):
                    event = self._try_loop(trial, summary.session)
                    told.append(event)
                    loops += [trial.frames] if event.name == "loop_closed" else []
            self._state.history.end_step()
            with timed(self._state.seconds, "graph"):
                corrected = self.live_map.correct_if_due(last)
            frozen = self._fix_scale()
            told, corrected = [*told, *frozen], corrected or bool(frozen)
        finally:  # what has changed is told, whatever failed after it
            self._tell(summary, change, told, corrected, loops, timings)

    def _fix_scale(self) -> list[Event]:
        """Metres from now on, once they are known well enough."""
        if not self.live_map.fix_scale():
            return []
        sigma = 100.0 * self.scale.variance**0.5
        text = f"multiplied by {self.scale.applied:.4g}, from {self.scale.source}, +- {sigma:.1f} %"
        return [Event("scale_frozen", f"the map is in metres from now on: {text}")]

    def _try_loop(self, trial: LoopTrial, session: int) -> Event:
        """Reconstruct two places together; if they are one, that becomes an edge of the graph. A
        device that cannot hold both gets half of the frames."""
        state = self._state
        for attempt in (trial, *trial.halved()):
            index = state.chunks.chunker.next_index()
            try:
                chunk = state.loops.chunk(attempt, index, state.chunks.chunker.first_size, session)
                contribute = self.config.memory.loop_contributes
                prediction = self.reconstructor.reconstruct(chunk, contribute)
            except OutOfDeviceMemory as error:
                reason = str(error)
                continue
            except (ReconstructionFailed, NoRecord) as failure:
                reason = str(failure)
                break
            reason = state.loops.tie(attempt, prediction, self.live_map)
            state.history.add(chunk.summary, attempt, proven=not reason)
            break
        return trial.event(reason, index)

    def _tell(
        self,
        summary: ChunkSummary,
        change: MapChange,
        events: Sequence[Event],
        corrected: bool = False,
        loops: Sequence[tuple[int, int]] = (),
        timings: Mapping[str, float] | None = None,
    ) -> None:
        self._state.counters.update(event.name for event in events)
        cloud = self.live_map.cloud_of(change)
        update = MapUpdate(
            map_revision=self.map_revision,
            chunk_index=summary.index,
            session=summary.session,
            poses=self.live_map.poses(None if corrected else change.frame_ids),
            points=cloud.points,
            colors=cloud.colors,
            confidence=cloud.confidence,
            corrected=corrected,
            scale=self.scale,
            loops=tuple(loops),
            events=tuple(events),
            timings=dict(timings or {}),
        )
        self._made.append(update)

    def _replace(self, state: MappingState) -> None:
        """Another map takes the place of this one; where the camera is mounted stays."""
        state.live_map.scale_and_level.T_base_camera = self.live_map.scale_and_level.T_base_camera
        before, self._state = self._state, state
        self._made, self.consistent = [], True
        self._files = save.new_files()
        shutil.rmtree(before.loops.records.folder, ignore_errors=True)

    def _new_records(self) -> Path:
        """An empty folder, so that the records of two maps can be there at once."""
        return self._folder / save.new_files()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Mark the map inconsistent until the block ends or fails, but not if it is interrupted."""
        before, self.consistent = self.consistent, False
        try:
            yield
        except Exception:
            self.consistent = before
            raise
        self.consistent = before
