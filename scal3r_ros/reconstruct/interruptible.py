"""A reconstructor whose caller can stop waiting.

Inference is native code that cannot be interrupted. It runs in a thread of its own, so that the
worker, which owns the map, can still save it and leave when the node is stopped.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from scal3r_ros.reconstruct.interface import (
    KeepsChunks,
    MemoryLost,
    MemoryState,
    ReconstructionFailed,
    Reconstructor,
    events_of,
    keeps_chunks,
)
from scal3r_ros.records import Chunk, ChunkPrediction, Event


class Interrupted(KeyboardInterrupt):
    """The node is being stopped; the chunk in flight was given up.

    To the mapper it is the Ctrl-C that it is: the chunk waits on, and is saved with the map.
    """


PATIENCE = 2.0
"""Seconds that a memory has to answer in, once the node is being stopped."""


class InterruptibleReconstructor:
    """Passes every call to `inner` on the inference thread and waits for it or for `interrupt`.

    The caller may use the time: `while_waiting` is called now and then on the thread that waits.
    What it does may ask for the memory, as it is after the last finished chunk, and nothing else.
    """

    def __init__(self, inner: Reconstructor, limits: str = "") -> None:
        self.name = inner.name
        self.limits = limits
        """What a user must know before trusting the result; empty if there is nothing."""
        self.round_size = inner.round_size
        self.last_prediction: ChunkPrediction | None = None
        """Newest prediction of a sequence chunk."""
        self.keeps_chunks = keeps_chunks(inner)
        self.while_waiting: Callable[[], None] = _nothing
        self._inner = inner
        self._last_known: MemoryState | None = None
        """As it was told or given last."""
        self._waiting = False
        self._interrupted = threading.Event()
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)
        self._thread.start()

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        try:
            prediction = self._call(lambda: self._inner.reconstruct(chunk, contribute=contribute))
        except Interrupted as interrupt:
            if chunk.kind != "sequence":  # the map is whole without it, and can be saved
                raise ReconstructionFailed(str(interrupt)) from interrupt
            raise
        if chunk.kind == "sequence":
            self.last_prediction = prediction
        return prediction

    def reconstruct_round(
        self, chunks: Sequence[Chunk]
    ) -> list[ChunkPrediction | ReconstructionFailed]:
        results = self._call(lambda: self._inner.reconstruct_round(chunks))
        good = [result for result in results if isinstance(result, ChunkPrediction)]
        self.last_prediction = good[-1] if good else self.last_prediction
        return results

    def finalize(self) -> Iterator[ChunkPrediction | ReconstructionFailed]:
        """All chunks once more with the memory of the whole run (memory.mode finalize)."""
        if not hasattr(self._inner, "finalize"):
            raise ValueError(f"{self.name} has no memory to finalize")
        return self._one_by_one(iter(self._call(self._inner.finalize)))

    def reset(self) -> None:
        self.last_prediction = self._last_known = None
        self._call(self._inner.reset)

    def state(self) -> MemoryState:
        """The memory after the last finished chunk, also while one that was given up still runs.
        That one may end meanwhile and be in it; `MemoryState.version` tells."""
        try:
            self._last_known = self._ask_memory(self._inner.state)
        except MemoryLost as lost:
            raise MemoryLost(lost.reason, lost.last_known or self._last_known) from lost
        return self._last_known

    def save_chunks(self, folder: Path) -> int:
        """As `KeepsChunks`, if `keeps_chunks`."""
        return self._ask_memory(lambda: cast(KeepsChunks, self._inner).save_chunks(folder))

    def load_chunks(self, folder: Path, count: int, known: Collection[int]) -> None:
        """As `KeepsChunks`, if `keeps_chunks`."""
        self._call(lambda: cast(KeepsChunks, self._inner).load_chunks(folder, count, known))

    def restore(self, state: MemoryState) -> None:
        self._call(lambda: self._inner.restore(state))
        self._last_known = state

    def take_events(self) -> list[Event]:
        """As `TellsEvents`."""
        return events_of(self._inner)

    def interrupt(self) -> None:
        """Make the waiting call, and all later ones, raise `Interrupted`."""
        self._interrupted.set()
        self._calls.put(None)

    def close(self, timeout: float) -> bool:
        """End the thread; False if a call still runs after `timeout` seconds."""
        self.interrupt()
        self._thread.join(timeout)
        if hasattr(self._inner, "close"):
            self._inner.close()
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _one_by_one(self, outcomes: Iterator) -> Iterator[ChunkPrediction | ReconstructionFailed]:
        while (outcome := self._call(lambda: next(outcomes, None))) is not None:
            yield outcome

    def _call(self, function: Callable[[], Any]) -> Any:
        answer: queue.SimpleQueue = queue.SimpleQueue()
        self._calls.put((function, answer))
        while True:
            if self._interrupted.is_set():
                raise Interrupted("stopped while a chunk was in flight")
            try:
                return _unpacked(answer.get(timeout=0.1))
            except queue.Empty:
                self._use_time()

    def _use_time(self) -> None:
        if not self._waiting:
            self._waiting = True
            try:
                self.while_waiting()
            finally:
                self._waiting = False

    def _ask_memory(self, function: Callable[[], Any]) -> Any:
        """In the inference thread's turn, or beside a call that is in flight."""
        if not (self._interrupted.is_set() or self._waiting):
            return self._call(function)
        answer: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=_serve_one, args=(function, answer), daemon=True).start()
        limit = PATIENCE if self._interrupted.is_set() else None
        try:
            return _unpacked(answer.get(timeout=limit))
        except queue.Empty:
            raise MemoryLost(f"the memory of {self.name} did not answer in {limit:g} s") from None

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            _serve_one(*call)


def _serve_one(function: Callable[[], Any], answer: queue.SimpleQueue) -> None:
    try:
        answer.put((True, function()))
    except BaseException as error:  # raised again where the call was made
        answer.put((False, error))


def _unpacked(answer: tuple[bool, Any]) -> Any:
    succeeded, result = answer
    if succeeded:
        return result
    raise result


def _nothing() -> None:
    """What a caller does that has nothing else to do."""
