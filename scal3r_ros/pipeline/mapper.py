"""The method: frames in, one correct and bounded map out. Live and offline use this class."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from scal3r_ros.config import Config
from scal3r_ros.io.map_store import read_map, write_map
from scal3r_ros.mapping.chunking import Chunker
from scal3r_ros.mapping.parallax import ParallaxGate
from scal3r_ros.pipeline import save as saved_map
from scal3r_ros.pipeline.finalize import ChunkHistory
from scal3r_ros.pipeline.live_map import MapAssembly
from scal3r_ros.pipeline.loops import LoopSearch
from scal3r_ros.pipeline.map_view import MapView
from scal3r_ros.pipeline.outlines import ChunkOutline, Joined
from scal3r_ros.reconstruct.interface import (
    Finalizes,
    OutOfDeviceMemory,
    ReconstructionFailed,
    Reconstructor,
)
from scal3r_ros.records import Chunk, ChunkPrediction, Event, Frame, MapUpdate
from scal3r_ros.stopwatch import timed

Outcome = ChunkPrediction | ReconstructionFailed
MAP_FILE = "map_state.npz"


class Mapper(MapView):
    """Frames that passed the frame gate, in order of time, become a map."""

    def __init__(
        self, config: Config, reconstructor: Reconstructor, records: str | Path | None = None
    ) -> None:
        """`records` is the folder for what loops need of old frames; by default a temporary one."""
        self.config, self.reconstructor = config, reconstructor
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if not records:
            self._temporary = tempfile.TemporaryDirectory(prefix="scal3r_")
            records = self._temporary.name
        self._folder = Path(records)
        self._start()

    def _start(self) -> None:
        self.counters = Counter()
        self.seconds = {}
        self.consistent = True
        """False while a chunk is half integrated: an interrupted map of that kind is not saved."""
        self.next_frame_id = 0
        self.last_stamp_ns: int | None = None
        self._parallax = ParallaxGate(self.config.gate)
        self._chunker = Chunker(self.config.chunk)
        self._waiting: list[Chunk] = []
        self._assembly = MapAssembly(self.config)
        self._loops = LoopSearch(self.config.loop, self.config.alignment, self._folder)
        self._files = saved_map.new_files()
        self._history = ChunkHistory(wanted=self.config.memory.mode == "finalize")

    def _restart(self) -> None:
        mount = self._assembly.references.T_base_camera
        self._start()
        self.set_camera_mount(mount)

    def add(self, frame: Frame, starts_session: bool = False) -> list[MapUpdate]:
        """Take the next frame; tells what changed, usually nothing until a chunk is full."""
        with self._changing():
            updates = self._run_due()
            updates += self.start_session() if starts_session else []
            self.next_frame_id = max(self.next_frame_id, frame.id + 1)
            self.last_stamp_ns = frame.stamp_ns
            self.counters["frames"] += 1
            if not self._parallax.admit(frame.rgb, frame.stamp_ns):
                self.counters["no_parallax"] += 1
                return updates
            chunk = self._chunker.push(frame)
            return updates + (self._enqueue(chunk) if chunk else [])

    def flush(self) -> list[MapUpdate]:
        """Map what is waiting and confirm provisional poses; the next frame continues the chain."""
        with self._changing():
            updates = self._run_due()
            while self._waiting or self._chunker.new_frames:
                while chunk := self._chunker.flush():
                    updates += self._enqueue(chunk)
                if self._waiting:
                    updates += self._run_round()  # may give frames back to the chunker
            last = self._assembly.open
            if last is not None and (last.waiting or self._assembly.graph.pending):
                updates.append(self._finish(last.outline, self._assembly.confirm(), last=True))
            return updates

    def start_session(self) -> list[MapUpdate]:
        """End the chain of chunks: the next frame shares nothing with those before."""
        updates = self.flush()
        self._assembly.close()
        self._chunker.start_session()
        self._parallax.reset()
        self.counters["session_started"] += 1
        return updates

    def finalize(self) -> list[MapUpdate]:
        """With memory.mode finalize: map all chunks again as if the memory had known all of them
        from the start."""
        updates = self.flush()
        if self._history.empty:
            return updates
        self._files = saved_map.new_files()  # what is recorded of the chunks changes
        outcomes = cast(Finalizes, self.reconstructor).finalize()
        self._assembly, events = self._history.build_again(outcomes, self._assembly, self._loops)
        return [*updates, self._update(self._history.last, Joined(), events, corrected=True)]

    def reset(self) -> None:
        """Forget the map and the memory."""
        self._loops.records.clear()
        self.reconstructor.reset()
        self._restart()

    def save(self, folder: str | Path) -> None:
        """Save everything needed to go on later in the same map frame; atomic.

        Raises `RuntimeError` if an interrupt left a chunk half integrated.
        """
        if not self.consistent:
            raise RuntimeError("a chunk is half integrated; go on from an earlier save")
        memory = self.reconstructor.state()
        arrays, facts = saved_map.pack(self._assembly, self._chunker, self._waiting, memory)
        arrays |= self._loops.state()
        kept, kept_ns = self._parallax.state()
        if kept is not None:
            arrays["parallax.kept"] = kept
        facts |= {
            "counters": dict(self.counters),
            "seconds": dict(self.seconds),
            "next_frame_id": self.next_frame_id,
            "last_stamp_ns": self.last_stamp_ns,
            "kept_ns": kept_ns,
        }
        with saved_map.files_for(Path(folder), facts, self._files) as beside:
            facts |= self._history.save(self.reconstructor, beside)
            self._loops.copy_records(beside)
            write_map(Path(folder) / MAP_FILE, arrays, facts)

    def load(self, folder: str | Path) -> None:
        """Continue a saved map; raises `BadMapFile`, or `ValueError` for another network's memory.

        Nothing changes if it fails.
        """
        arrays, facts = read_map(Path(folder) / MAP_FILE)
        self.reconstructor.restore(saved_map.unpack_memory(arrays, facts["memory"]))
        beside = saved_map.files_of(Path(folder), facts)
        self._history.load(self.reconstructor, beside, facts)
        history = self._history
        self._restart()
        self._history = history
        saved_map.unpack_assembly(self._assembly, arrays, facts["assembly"])
        self._waiting = saved_map.unpack_frames(self._chunker, arrays, facts["frames"])
        self._parallax.restore(arrays.get("parallax.kept"), facts["kept_ns"])
        self._loops.fetch_records(beside)
        self._loops.restore(arrays)
        self.counters.update(facts["counters"])
        self.seconds.update(facts["seconds"])
        self.next_frame_id, self.last_stamp_ns = facts["next_frame_id"], facts["last_stamp_ns"]

    def _enqueue(self, chunk: Chunk) -> list[MapUpdate]:
        self._waiting.append(chunk)
        return self._run_due()

    def _run_due(self) -> list[MapUpdate]:
        """Full rounds; one can be left over from an interrupt."""
        updates = []
        while len(self._waiting) >= self.reconstructor.round_size:
            updates += self._run_round()
        return updates

    def _run_round(self) -> list[MapUpdate]:
        """The chunks wait on if this is interrupted, so that a saved map has lost nothing."""
        changing, self.consistent = self.consistent, True
        try:
            with timed(self.seconds, "reconstruct"):
                chunks, outcomes, events = self._reconstruct()
        except Exception:
            del self._waiting[: self.reconstructor.round_size]
            raise
        self.consistent = changing
        del self._waiting[: len(chunks)]
        notes = [events, *([] for _ in chunks[1:])]
        return [self._integrate(*item) for item in zip(chunks, outcomes, notes)]

    def _reconstruct(self) -> tuple[list[Chunk], Sequence[Outcome], list[Event]]:
        """The next round; when a chunk does not fit the device, all that wait are cut shorter."""
        events: list[Event] = []
        while True:
            due = self._waiting[: self.reconstructor.round_size]
            try:
                return due, self.reconstructor.reconstruct_round(due), events
            except OutOfDeviceMemory as error:
                longest = max(len(chunk.frames) for chunk in due)
                smallest = self.config.chunk.overlap + 1
                if longest <= smallest:
                    raise
                size = max(longest * 3 // 4, smallest)
                self._waiting = self._chunker.recut(self._waiting, size)
                text = f"{error}; chunks have {size} frames from now on"
                events.append(Event("chunk_shrunk", text, due[0].index))

    def _integrate(self, chunk: Chunk, outcome: Outcome, events: list[Event]) -> MapUpdate:
        """Align, own and fuse one chunk; a failed one ends the chain."""
        outline = ChunkOutline.of(chunk)
        self._history.add(outline)
        if isinstance(outcome, ReconstructionFailed):
            failed = Event("chunk_failed", f"chunk {chunk.index}: {outcome}", chunk.index)
            return self._finish(outline, self._assembly.close(), [*events, failed], last=True)
        self.counters["chunks"] += 1
        self.counters["frames_missing"] += len(outcome.missing_ids)
        with timed(self.seconds, "align_and_fuse"):
            joined = self._assembly.join(outline, outcome)
        with timed(self.seconds, "record"):
            self._loops.record(outcome, {frame.id: frame for frame in chunk.frames})
        return self._finish(outline, joined, events, outcome.timings)

    def _finish(
        self, outline: ChunkOutline, joined: Joined, events=(), timings=None, last: bool = False
    ) -> MapUpdate:
        """Loops and scale after a change, and the update that tells about all of it; with `last`
        of a chain no loop waits on."""
        with timed(self.seconds, "loops"):
            loops, loop_events = self._close_loops(outline, joined)
        with timed(self.seconds, "graph"):
            corrected = self._assembly.correct_if_due(last)
        corrected = self._assembly.fix_scale() or corrected
        events = [*events, *joined.events, *loop_events]
        return self._update(outline, joined, events, corrected, loops, timings)

    def _close_loops(
        self, outline: ChunkOutline, joined: Joined
    ) -> tuple[list[tuple[int, int]], list[Event]]:
        """One loop chunk per candidate; the proven ones become edges of the graph."""
        accepted, events = [], []
        for trial in self._loops.trials(joined, self._assembly):
            chunk = self._loops.chunk(trial, self._chunker, outline.session)
            contribute = self.config.memory.loop_contributes
            try:
                prediction = self.reconstructor.reconstruct(chunk, contribute)
            except ReconstructionFailed as failure:
                events.append(Event("loop_rejected", f"{trial.name}: {failure}", chunk.index))
                continue
            self._history.add(ChunkOutline.of(chunk), trial)
            reason = self._loops.tie(trial, prediction, self._assembly)
            name = "loop_rejected" if reason else "loop_closed"
            events.append(Event(name, f"{trial.name} {reason}".strip(), chunk.index))
            if not reason:
                accepted.append((trial.candidate.match_id, trial.candidate.frame_id))
        return accepted, events

    def _update(
        self,
        outline: ChunkOutline,
        joined: Joined,
        events: Sequence[Event],
        corrected: bool = False,
        loops: Sequence[tuple[int, int]] = (),
        timings=None,
    ) -> MapUpdate:
        self.counters.update(event.name for event in events)
        return MapUpdate(
            map_revision=self.map_revision,
            chunk_index=outline.index,
            session=outline.session,
            poses=self._assembly.poses(None if corrected else joined.frame_ids),
            points=joined.cloud.points,
            colors=joined.cloud.colors,
            confidence=joined.cloud.confidence,
            corrected=corrected,
            scale=self.scale,
            loops=tuple(loops),
            events=tuple(events),
            timings=dict(timings or {}),
        )

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
