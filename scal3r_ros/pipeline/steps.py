"""The steps of the method, from frames that wait to an update that tells what has changed:
reconstruct, align and fuse, close loops, correct, fix the scale, tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from scal3r_ros.config import Config
from scal3r_ros.mapping.loop_records import NoRecord
from scal3r_ros.pipeline import joining
from scal3r_ros.pipeline.chunk_queue import Reconstructed
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.pipeline.loops import LoopTrial
from scal3r_ros.pipeline.map_change import MapChange
from scal3r_ros.pipeline.mapping_state import MappingState
from scal3r_ros.reconstruct.interface import (
    OutOfDeviceMemory,
    ReconstructionFailed,
    Reconstructor,
)
from scal3r_ros.records import ChunkSummary, Event, MapUpdate
from scal3r_ros.stopwatch import timed


class MappingSteps:
    """Changes one state, and collects what is to be told of it."""

    def __init__(self, config: Config, reconstructor: Reconstructor, state: MappingState) -> None:
        self._config, self._reconstructor = config, reconstructor
        self.state = state
        self.consistent = True
        """False while a chunk is half integrated: an interrupted map of that kind is not saved."""
        self._behind = 0
        """Chunks that were reconstructed and are not in the map yet."""
        self.made: list[MapUpdate] = []
        """What changed and was not told yet."""

    @property
    def live_map(self) -> LiveMap:
        """The map that the state holds; `Mapper.finalize` puts another one there."""
        return self.state.live_map

    def map_full_rounds(self) -> None:
        """What waits, while there is a round of it."""
        while self.state.chunks.full(self._reconstructor):
            self._map_round()

    def map_rest(self) -> None:
        """Every frame that waits; a device that is too small may give some back once more."""
        chunks = self.state.chunks
        self.map_full_rounds()
        while chunks.waiting or chunks.chunker.new_frames:
            while chunks.cut_rest():
                self.map_full_rounds()
            if chunks.waiting:
                self._map_round()
        self.confirm()

    def end_chain(self) -> None:
        """Map the rest; the next chunk shares nothing with those before."""
        self.map_rest()
        joining.close(self.live_map)
        self.state.chunks.chunker.start_session()
        self.state.parallax.reset()
        self.state.counters["session_started"] += 1

    def confirm(self) -> None:
        """Before a pause or the end: make provisional poses final and close the loops that wait."""
        last = self.live_map.open
        if last is not None and (last.waiting or self.live_map.graph.pending):
            far = self._look_far(last.summary.session, tail=True)
            self._finish(last.summary, joining.confirm(self.live_map), far, last=True)

    def tell(
        self,
        summary: ChunkSummary,
        change: MapChange,
        events: Sequence[Event],
        corrected: bool = False,
        loops: Sequence[tuple[int, int]] = (),
        timings: Mapping[str, float] | None = None,
    ) -> None:
        """Make the update about a change; one that corrected the map holds every pose
        that moved."""
        self.state.counters.update(event.name for event in events)
        cloud = self.live_map.cloud_of(change)
        update = MapUpdate(
            map_revision=self.live_map.revision,
            chunk_index=summary.index,
            session=summary.session,
            poses=self.live_map.tell_poses(change.frame_ids, corrected),
            points=cloud.points,
            colors=cloud.colors,
            confidence=cloud.confidence,
            corrected=corrected,
            scale=self.live_map.scale,
            loops=tuple(loops),
            events=tuple(events),
            timings=dict(timings or {}),
        )
        self.live_map.trajectory.tell(update.poses)
        self.made.append(update)

    def changing(self) -> AbstractContextManager[None]:
        """Mark the map inconsistent until the block ends or fails, but not if it is interrupted."""
        return self._marked(consistent=False)

    def _while_the_network_computes(self) -> AbstractContextManager[None]:
        """The map can be saved: what is under way only adds to it, if nothing else waits."""
        return self._marked(consistent=not self._behind)

    @contextmanager
    def _marked(self, consistent: bool) -> Iterator[None]:
        before, self.consistent = self.consistent, consistent
        try:
            yield
        except Exception:
            self.consistent = before
            raise
        self.consistent = before

    def _map_round(self) -> None:
        """The chunks wait on if the network is interrupted, so that a saved map lost nothing."""
        with self._while_the_network_computes(), timed(self.state.seconds, "reconstruct"):
            done = self.state.chunks.reconstruct_round(self._reconstructor)
        failures = []
        for number, item in enumerate(done, start=1):
            self._behind = len(done) - number
            try:
                self._integrate(item)
            except Exception as failure:  # raised below: the rest of the round is not to be lost
                failures.append(failure)
        if failures:
            raise failures[0]

    def _integrate(self, item: Reconstructed) -> None:
        """Align, own and fuse one chunk; a failed one ends the chain."""
        state, chunk, outcome = self.state, item.chunk, item.outcome
        summary = chunk.summary
        state.history.add(summary)
        if isinstance(outcome, ReconstructionFailed):
            failed = Event("chunk_failed", f"chunk {chunk.index}: {outcome}", chunk.index)
            closed = joining.close(self.live_map)
            self._finish(summary, closed, [*item.events, failed], last=True)
            return
        state.counters["chunks"] += 1
        state.counters["frames_missing"] += len(outcome.missing_ids)
        with timed(state.seconds, "align_and_fuse"):
            change = joining.join(self.live_map, summary, outcome)
        far: list[Event] = []
        try:
            with timed(state.seconds, "record"):
                state.loops.record(outcome, {frame.id: frame for frame in chunk.frames})
            with timed(state.seconds, "far_edges"):
                far = state.far.span(outcome, state.loops.records, self.live_map)
                far += self._look_far(summary.session)
        finally:  # the chunk is in the map, whether or not a later loop can use it
            far += [Event("refinement", outcome.note, chunk.index)] if outcome.note else []
            self._finish(summary, change, [*item.events, *far], outcome.timings)

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
            with timed(self.state.seconds, "loops"):
                for candidate in self.state.loops.trials(change, self.live_map):
                    for trial, reason, index in self._try_loop(candidate, summary.session):
                        event = trial.event(reason, index)
                        told += [event, *_alarm(event)]
                        loops += [] if reason else [trial.frames]
            self.state.history.end_step()
            with timed(self.state.seconds, "graph"):
                corrected = self.live_map.correct_if_due(last)
            with timed(self.state.seconds, "fuse_repeats"):
                self.live_map.fuse_repeats()
            frozen = self._fix_scale()
            with timed(self.state.seconds, "grid"):
                told += [*frozen, *self.live_map.take_floor()]
            corrected = corrected or bool(frozen)
        finally:  # what has changed is told, whatever failed after it
            self.tell(summary, change, told, corrected, loops, timings)

    def _fix_scale(self) -> list[Event]:
        """Metres from now on, once they are known well enough."""
        if not self.live_map.fix_scale():
            return []
        scale = self.live_map.scale
        sigma = 100.0 * scale.variance**0.5
        text = f"multiplied by {scale.applied:.4g}, from {scale.source}, +- {sigma:.1f} %"
        return [Event("scale_frozen", f"the map is in metres from now on: {text}")]

    def _look_far(self, session: int, tail: bool = False) -> list[Event]:
        """Reconstruct a window over many chunks, if one is due; what it tells becomes edges. The
        memory reads and does not absorb it, so that the stream stays as it is without."""
        state = self.state
        window = state.far.window(self.live_map, state.loops.records, tail)
        if window is None:
            return []
        index, records = state.chunks.chunker.next_index(), state.loops.records
        first_size = state.chunks.chunker.first_size
        try:
            chunk = state.far.chunk(window, records, index, first_size, session)
            with self._while_the_network_computes():
                prediction = self._reconstructor.reconstruct(chunk, contribute=False)
        except (OutOfDeviceMemory, ReconstructionFailed, NoRecord) as failure:
            reason = str(failure)
        else:
            reason = state.far.tie(window, prediction, records, self.live_map)
            state.history.add(chunk.summary, window, proven=not reason)
        return [window.event(reason, index)]

    def _try_loop(self, trial: LoopTrial, session: int) -> list[tuple[LoopTrial, str, int]]:
        """Try a pair, and if the frames around it do not fit, others beside it until some do. What
        was tried, why it proves no loop, or nothing, and under which chunk index."""
        reason, index = self._try_placement(trial, session)
        tried = [(trial, reason, index)]
        for other in self.state.loops.elsewhere(trial, reason, self.live_map):
            if not tried[-1][1]:
                break
            tried.append((other, *self._try_placement(other, session)))
        return tried

    def _try_placement(self, trial: LoopTrial, session: int) -> tuple[str, int]:
        """Reconstruct two places together; if they are one, that becomes an edge of the graph. A
        device that cannot hold both gets half of the frames. Returns why not, or nothing, and the
        index of the loop chunk."""
        state = self.state
        for attempt in (trial, *trial.halved()):
            index = state.chunks.chunker.next_index()
            try:
                chunk = state.loops.chunk(attempt, index, state.chunks.chunker.first_size, session)
                contribute = self._config.memory.loop_contributes
                with self._while_the_network_computes():
                    prediction = self._reconstructor.reconstruct(chunk, contribute)
                state.chunks.contributed += contribute
            except OutOfDeviceMemory as error:
                reason = str(error)
                continue
            except (ReconstructionFailed, NoRecord) as failure:
                reason = str(failure)
                break
            reason = state.loops.tie(attempt, prediction, self.live_map)
            state.history.add(chunk.summary, attempt, proven=not reason)
            break
        return reason, index


def _alarm(event: Event) -> list[Event]:
    """A place that is seen again at another scale tells that the scale has drifted or collapsed."""
    if event.name != "loop_rejected" or not event.message.endswith("scale_change"):
        return []
    text = (
        f"{event.message}: the same place has two scales, so the map shrank or grew between them; "
        f"give a source of scale (scale.source), or map in shorter sessions"
    )
    return [Event("scale_contradicted", text, event.chunk_index)]
