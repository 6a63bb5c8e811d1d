"""The one thread that owns the mapper: takes frames from the queue, runs commands between them.

Everybody else talks to it by the queue and by `submit`; results leave through `deliver`.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from scal3r_ros.io.stretch import Stretch
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.input.frame_decoder import decode
from scal3r_ros.nodes.input.frame_queue import FrameQueue, Ticket
from scal3r_ros.nodes.input.size_change import SizeChange
from scal3r_ros.reconstruct.interruptible import Interrupted, InterruptibleReconstructor
from scal3r_ros.records import GOOD_NEWS, Frame, MapUpdate

LOADING, READY, FAILED, STOPPED = "loading", "ready", "failed", "stopped"


MAX_OBSERVATIONS = 5000
"""Measurements of other sensors that wait while a chunk is computed; the oldest go first."""
SAVE_TIMEOUT = 10.0
"""Seconds that the last save may take after the chunk in flight was given up."""


class WorkerNotReady(RuntimeError):
    """A command cannot run; the message says what to do."""


@dataclass
class WorkerStatistics:
    """Figures for diagnostics; written by the worker only."""

    chunk_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    video_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    """Length of new video that each of these chunks added."""
    failures_in_row: int = 0
    malformed_in_row: int = 0
    malformed_reason: str = ""
    unmapped_in_row: int = 0
    """Chunks that could not be reconstructed, since the last one that could."""
    unmapped_reason: str = ""
    calibration_problem: str = ""
    """Why the newest frame is mapped without the calibration that came with it."""


@dataclass(frozen=True)
class Output:
    """What a step of the worker changed, and the mapper to take snapshots from; only valid during
    the call of `deliver`, which runs on the worker's thread."""

    mapper: Any
    updates: tuple[MapUpdate, ...]
    frame: Frame | None = None
    replaced: bool = False
    """True if the map is another one: emptied or loaded."""
    final: bool = False
    """True if no more is to come soon, so everything should be published now."""


@dataclass(frozen=True)
class Command:
    """What somebody asks of the mapper, and where the answer goes."""

    run: Callable[[Any], Any]
    future: Future
    reads: bool = False


class MappingWorker:
    """Start it once; `running` says whether frames are taken, commands always are."""

    def __init__(
        self,
        config: NodeConfig,
        frames: FrameQueue,
        make_mapper: Callable[[NodeConfig], tuple[Any, InterruptibleReconstructor]],
        deliver: Callable[[Output], None],
        logger: Any,
    ) -> None:
        self.config = config
        self.statistics = WorkerStatistics()
        self.counts: Counter[str] = Counter()
        self.state, self.reason = LOADING, "the network is being loaded"
        self.mapper: Any = None
        self.reconstructor: InterruptibleReconstructor | None = None
        self._frames, self._make_mapper, self._deliver = frames, make_mapper, deliver
        self._logger = logger
        self._changed = frames.changed
        self._commands: deque[Command] = deque()
        self._observations: deque[Callable[[Any], Any]] = deque(maxlen=MAX_OBSERVATIONS)
        self._running = False
        self._stopping = False
        self._session_due = False
        self._stretch, self._size_change = Stretch(), SizeChange()
        self._last_stamp: int | None = None
        self._since_chunk = (0, 0.0)
        """Frames, and seconds that they took, since the last chunk."""
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._running

    @property
    def ended(self) -> bool:
        """Whether the map is left alone: the thread was never started or is over."""
        return not self._thread.is_alive()

    def set_running(self, running: bool) -> None:
        """Whether to take frames; a chunk in flight is finished in any case."""
        with self._changed:
            self._running = running
            if running and self.state == READY:
                self.statistics.failures_in_row, self.reason = 0, ""
            self._changed.notify_all()

    def submit(self, command: Callable[[Any], Any], reads: bool = False) -> Future:
        """Run `command(mapper)` between two frames; its result or exception is in the future. One
        that only `reads` the map also runs while the network computes or does not answer."""
        future: Future = Future()
        with self._changed:
            if self.state in (FAILED, STOPPED):
                future.set_exception(WorkerNotReady(self.reason))
                return future
            self._commands.append(Command(command, future, reads))
            self._changed.notify_all()
        return future

    def observe(self, observation: Callable[[Any], Any]) -> None:
        """Give the mapper a measurement before its next frame; never waits."""
        self._observations.append(observation)

    def stop(self, timeout: float, last: Callable[[Any], Any] | None = None) -> bool:
        """End the thread; `last(mapper)` runs before. False if native code is still running.

        The chunk in flight may finish within `timeout` seconds, else it is given up.
        """
        with self._changed:
            self._running, self._stopping = False, True
            saved: Future = Future()
            if last is not None and self.state in (LOADING, READY):
                self._commands.append(Command(last, saved))
            self._changed.notify_all()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        ended = True
        if self.reconstructor is not None:
            self.reconstructor.interrupt()
            self._thread.join(SAVE_TIMEOUT)
            ended = self.reconstructor.close(timeout=0.2)
        if saved.done() and saved.exception() is not None:
            self._logger.error(f"the last save failed: {saved.exception()}")
        return ended and self.ended

    def process_queue(self) -> None:
        """Work off every frame that waits; only for commands, which run on this thread."""
        while not self._stopping and (ticket := self._frames.pop()) is not None:
            self._process(ticket)

    def follow(self, stamp_ns: int | None) -> None:
        """What the newest frame of the map is now, None if it is empty; only for commands."""
        self._last_stamp, self._session_due = stamp_ns, False

    def deliver(self, updates: Any = (), **about: Any) -> None:
        """Hand out what changed; only for commands."""
        updates = tuple(updates)
        for update in updates:
            self._observe(update)
        self._deliver(Output(self.mapper, updates, **about))

    def _run(self) -> None:
        try:
            self.mapper, self.reconstructor = self._make_mapper(self.config)
            self.reconstructor.while_waiting = self._answer_readers
            self.state, self.reason = READY, ""
            while self._guarded_step():
                pass
        except Interrupted:
            pass
        except Exception as error:  # the thread's border: reported in diagnostics and the log
            self.reason = str(error) or type(error).__name__
            self._logger.error(f"the worker failed:\n{traceback.format_exc()}")
        finally:
            self.state = STOPPED if self._stopping else FAILED
            self.reason = self.reason or "the worker has stopped"
            self._finish_commands()

    def _guarded_step(self) -> bool:
        """A step that fails costs what it was about; the session stays alive and can be saved."""
        try:
            return self._step()
        except Interrupted:
            raise
        except Exception as error:  # counted; the map is kept and served
            self._count_failure(error)
            return True

    def _step(self) -> bool:
        """Wait for something to do and do it; False when it is time to end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or self._commands or (self._running and len(self._frames)),
                timeout=0.5,
            )
            command = self._commands.popleft() if self._commands else None
            if command is None and self._stopping:
                return False
        if command is not None:
            self._execute(command)
        elif self._running and (ticket := self._frames.pop()) is not None:
            self._process(ticket)
        else:
            self.deliver()
        return True

    def _answer_readers(self) -> None:
        """Commands at the head of the line that only read, while the network is waited for."""
        while self.mapper.consistent:
            with self._changed:
                if not (self._commands and self._commands[0].reads):
                    return
                command = self._commands.popleft()
            self._execute(command)

    def _execute(self, command: Command) -> None:
        future = command.future
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(command.run(self.mapper))
        except Interrupted as error:
            future.set_exception(WorkerNotReady(str(error)))
            raise
        except Exception as error:  # belongs to whoever asked
            future.set_exception(error)

    def _process(self, ticket: Ticket) -> None:
        """One frame: decode, map, hand out. A malformed frame is counted and left out."""
        stays = self.mapper.whereabouts is not None  # the map does, whatever the clock does
        if ticket.resets_map and not stays:
            self.mapper.reset()
            self.follow(None)
            self.deliver(replaced=True)
        starts_session = ticket.starts_session or self._session_due or self._gap(ticket.stamp_ns)
        starts_session |= ticket.resets_map
        try:
            decoded = decode(ticket, self.mapper.next_frame_id, self.config.input, self._stretch)
            starts_session |= self._resized(decoded.frame)
        except ValueError as error:
            self._session_due = starts_session
            self.counts["malformed"] += 1
            self.statistics.malformed_in_row += 1
            self.statistics.malformed_reason = str(error)
            self._logger.warning(f"dropped a malformed image: {error}", throttle_duration_sec=5.0)
            return
        self._session_due, self._last_stamp = False, ticket.stamp_ns
        self._hand_over_observations()
        frame = decoded.frame
        self.counts["decoded"] += 1
        self.statistics.malformed_in_row = 0
        self._note_calibration(decoded.calibration_problem)
        started = time.monotonic()
        try:
            updates = self.mapper.add(frame, starts_session=starts_session)
        except Interrupted:
            raise
        except Exception as error:  # counted; the map is kept and served
            self._count_failure(error)
            self.deliver(self.mapper.take_updates())  # what was mapped before the failure
            return
        seconds = time.monotonic() - started
        self._note_speed(seconds, bool(updates))
        if updates:
            self.statistics.chunk_seconds.append(seconds / len(updates))
        self.counts["processed"] += 1
        self.deliver(updates, frame=frame)
        if updates:
            self.statistics.failures_in_row = 0

    def _resized(self, frame: Frame) -> bool:
        """Whether the camera has another image size from here on; raises `BadInput` for one odd
        image."""
        changed = self._size_change(frame.rgb)
        if changed:
            size = " x ".join(map(str, frame.rgb.shape[1::-1]))
            self._logger.warning(f"images are {size} from now on: a new part of the map begins")
        return changed

    def _note_speed(self, seconds: float, chunk_ends: bool) -> None:
        """Tells the queue, from chunk to chunk, how fast frames are mapped."""
        frames, spent = self._since_chunk[0] + 1, self._since_chunk[1] + seconds
        if chunk_ends:
            before = self._frames.seconds_per_frame or spent / frames
            self._frames.seconds_per_frame = (before + spent / frames) / 2.0
            frames, spent = 0, 0.0
        self._since_chunk = frames, spent

    def _hand_over_observations(self) -> None:
        """Measurements of other sensors; one that the mapper refuses is counted and left out."""
        while self._observations:
            try:
                self._observations.popleft()(self.mapper)
            except ValueError as error:
                self.counts["malformed_measurement"] += 1
                self._logger.warning(f"left out a measurement: {error}", throttle_duration_sec=5.0)

    def _note_calibration(self, problem: str) -> None:
        self.statistics.calibration_problem = problem
        if problem:
            self.counts["other_calibration"] += 1
            self._logger.warning(f"mapped as it came: {problem}", throttle_duration_sec=5.0)

    def _gap(self, stamp_ns: int) -> bool:
        """Whether drops in the queue or a loaded map tore a gap that the frame gate cannot see."""
        if self._last_stamp is None:
            return False
        step, limit = stamp_ns - self._last_stamp, self.config.gate.max_gap * 1e9
        return step <= 0 or (bool(limit) and step > limit)

    def _observe(self, update: MapUpdate) -> None:
        for event in update.events:
            self.counts[event.name] += 1
            text = f"{event.name}: {event.message}"
            # Two call sites: rclpy refuses another severity at the same line.
            if event.name in GOOD_NEWS:
                self._logger.info(text)
            else:
                self._logger.warning(text)
        new = [p.stamp_ns for p in update.poses if p.chunk_index == update.chunk_index]
        if new:
            self.statistics.video_seconds.append((max(new) - min(new)) * 1e-9)
            self.statistics.unmapped_in_row = 0
        for event in update.events:
            if event.name == "chunk_failed":
                self.statistics.unmapped_in_row += 1
                self.statistics.unmapped_reason = event.message

    def _count_failure(self, error: Exception) -> None:
        self.counts["failed"] += 1
        self.statistics.failures_in_row += 1
        self._logger.error(f"a step failed:\n{traceback.format_exc()}", throttle_duration_sec=5.0)
        if self.statistics.failures_in_row >= self.config.worker.max_failures:
            self._running = False
            self.reason = (
                f"{self.statistics.failures_in_row} chunks failed in a row, the last with: "
                f"{error}; deactivate and activate to go on"
            )

    def _finish_commands(self) -> None:
        """Run what was asked for before the end, so that a save is not lost; refuse the rest."""
        with self._changed:
            waiting = list(self._commands)
            self._commands.clear()
        for command in waiting:
            if self.mapper is None:
                command.future.set_exception(WorkerNotReady(self.reason))
                continue
            try:
                self._execute(command)
            except Interrupted:
                pass
