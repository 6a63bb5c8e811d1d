"""The network in a process of its own (worker.mode process), where it cannot hold up callbacks.

Images cross in shared memory, everything else through a pipe. The process is started afresh, never
forked: a fork after ROS or CUDA has begun would inherit their locks and threads. If it ends,
another one takes its place, with the memory that was known last.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.reconstruct.factory import open_reconstructor
from scal3r_ros.reconstruct.interface import (
    MemoryLost,
    MemoryState,
    ReconstructionFailed,
    Reconstructor,
    keeps_chunks,
)
from scal3r_ros.records import Chunk, ChunkPrediction, Event
from scal3r_ros.records_arrays import Packed, pack_chunk, unpack_chunk

SHARED_MEMORY = Path("/dev/shm")
"""Where shared blocks live on Linux; elsewhere the system answers for them."""


PAUSE = 20.0
"""A copy of the memory is fetched after so many times the seconds that the last one took: at most a
twentieth of the time."""


class ProcessLost(MemoryLost):
    """The network's process has ended, and the memory with it; the message says how."""


class ProcessReconstructor:
    """Implements `Reconstructor` by one child process; loading errors are raised at once."""

    def __init__(
        self, config: Config, open_inner: Callable[[Config], Reconstructor] = open_reconstructor
    ) -> None:
        self._config, self._open_inner = config, open_inner
        self._kept: MemoryState | None = None
        """A copy of the memory, for the next process."""
        self._kept_at, self._kept_seconds = 0.0, 0.0
        self._events: list[Event] = []
        self._closing = False
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._state_pipe, their_state_pipe = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(theirs, their_state_pipe, self._config, self._open_inner),
            name="network",
            daemon=True,
        )
        self._process.start()
        theirs.close()
        their_state_pipe.close()
        self.name, self.round_size, self.keeps_chunks = self._answer()

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        with _Images([chunk]) as images:
            arguments = images.chunks[0], contribute
            prediction = self._ask_safely("reconstruct", images.name, *arguments)
        self._keep_memory()
        return prediction

    def reconstruct_round(
        self, chunks: Sequence[Chunk]
    ) -> list[ChunkPrediction | ReconstructionFailed]:
        with _Images(chunks) as images:
            try:
                outcomes = self._ask_safely("reconstruct_round", images.name, images.chunks)
            except ReconstructionFailed as failure:
                return [failure] * len(chunks)
        self._keep_memory()
        return outcomes

    def take_events(self) -> list[Event]:
        """See `TellsEvents`."""
        events, self._events = self._events, []
        return events

    def finalize(self) -> list[ChunkPrediction | ReconstructionFailed]:
        return self._ask("finalize", None)

    def reset(self) -> None:
        """Also after the process has ended: another one is started."""
        self._kept = None
        if self._process.is_alive():
            self._ask("reset", None)
        else:
            self._start_again()

    def state(self) -> MemoryState:
        """The memory after the last finished chunk, also while one is being computed."""
        return self._ask_memory("state")

    def save_chunks(self, folder: Path) -> int:
        """As `KeepsChunks`, if `keeps_chunks`; also while a chunk is being computed."""
        return self._ask_memory("save_chunks", folder)

    def load_chunks(self, folder: Path, count: int, known: Collection[int]) -> None:
        """As `KeepsChunks`, if `keeps_chunks`."""
        self._ask("load_chunks", None, folder, count, tuple(known))

    def restore(self, state: MemoryState) -> None:
        if not self._process.is_alive():
            self._start_again()
        self._ask("restore", None, state)
        self._kept = state

    def close(self) -> None:
        """End the process, in the middle of a chunk if need be, and start no other."""
        self._closing = True
        self._end_process()

    def _end_process(self) -> None:
        self._process.kill()  # it holds nothing that has to be written, and ignores SIGTERM
        self._process.join()
        self._pipe.close()
        self._state_pipe.close()

    def _start_again(self) -> None:
        """Another process, with the memory that was known last."""
        self._end_process()
        self._start()
        if self._closing:  # meanwhile, from another thread
            self._end_process()
        if self._kept is not None:
            self._ask("restore", None, self._kept)

    def _ask_safely(self, method: str, memory: str, *arguments: Any) -> Any:
        """The answer of this process or, if it ends, of the next. Raises `ReconstructionFailed` for
        chunks that end both, so that the stream goes on without them."""
        for attempt in range(2):
            try:
                return self._ask(method, memory, *arguments)
            except ProcessLost as loss:
                if self._closing:
                    raise
                self._start_again()
                self._events.append(self._told(loss, again=attempt == 0))
        raise ReconstructionFailed("the network's process ended twice in this chunk")

    def _told(self, loss: ProcessLost, again: bool) -> Event:
        known = self._kept.version if self._kept is not None else 0
        what = "does the chunk again" if again else "goes on without the chunk"
        text = f"{loss.reason}; another one {what}, with the memory of the first {known} chunks"
        return Event("network_restarted", text)

    def _keep_memory(self) -> None:
        """Now and then, depending on how long it takes."""
        began = time.monotonic()
        if began - self._kept_at < PAUSE * self._kept_seconds:
            return
        with suppress(ProcessLost):  # the next chunk will notice
            self._kept = self._ask("state", None)
        self._kept_at = time.monotonic()
        self._kept_seconds = self._kept_at - began

    def _ask(self, method: str, memory: str | None, *arguments: Any) -> Any:
        try:
            self._pipe.send((method, memory, arguments))
        except OSError as error:
            raise self._lost() from error
        return self._answer()

    def _ask_memory(self, method: str, *arguments: Any) -> Any:
        try:
            self._state_pipe.send((method, arguments))
        except OSError as error:
            raise self._lost() from error
        return self._answer(self._state_pipe)

    def _answer(self, pipe: Connection | None = None) -> Any:
        try:
            succeeded, result = (pipe or self._pipe).recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if not succeeded:
            raise result
        return result

    def _lost(self) -> ProcessLost:
        self._process.join(1.0)
        reason = f"the network's process has ended with code {self._process.exitcode}"
        return ProcessLost(reason, self._kept)


class _Images:
    """Lays the images of chunks into one shared block; the rest of the chunks is in `chunks`."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        packed = [pack_chunk(chunk) for chunk in chunks]
        pixels = [record.arrays.pop("rgb") for record in packed]
        self._block = _shared_block(sum(image.nbytes for image in pixels))
        self.name = self._block.name
        self.chunks, offset = [], 0
        for record, image in zip(packed, pixels):
            _view(self._block, offset, image.size)[...] = image
            self.chunks.append((record, offset, image.size))
            offset += image.nbytes

    def __enter__(self) -> _Images:
        return self

    def __exit__(self, *_: object) -> None:
        self._block.close()
        self._block.unlink()


def _shared_block(size: int) -> SharedMemory:
    """Raises `ReconstructionFailed` where it does not fit: writing would end the process with a
    bus error."""
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < size:
            raise ReconstructionFailed(
                f"the images of a chunk need {size / 1e6:.1f} MB of shared memory, {SHARED_MEMORY} "
                f"has {free / 1e6:.1f} MB left; enlarge it (docker run --shm-size 1g) or set "
                f"worker.mode to thread"
            )
    return SharedMemory(create=True, size=max(1, size))


def _view(block: SharedMemory, offset: int, count: int) -> np.ndarray:
    return np.ndarray((count,), np.uint8, buffer=block.buf, offset=offset)


def _with_images(item: tuple[Packed, int, int], block: SharedMemory) -> Chunk:
    """The chunk with copies of its images, so that it outlives the shared block."""
    record, offset, count = item
    return unpack_chunk(record.facts, {**record.arrays, "rgb": _view(block, offset, count).copy()})


def _serve(
    pipe: Connection,
    state_pipe: Connection,
    config: Config,
    open_inner: Callable[[Config], Reconstructor],
) -> None:
    """Body of the process: answers calls until the other side is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # both reach the node, which ends this process
        signal.signal(number, signal.SIG_IGN)
    try:
        inner = open_inner(config)
    except Exception as error:  # raised again in the node
        pipe.send((False, error))
        return
    threading.Thread(target=_serve_state, args=(state_pipe, inner), daemon=True).start()
    pipe.send((True, (inner.name, inner.round_size, keeps_chunks(inner))))
    while True:
        try:
            method, memory, arguments = pipe.recv()
        except EOFError:
            return
        try:
            result = getattr(inner, method)(*_unpacked(method, memory, arguments))
            pipe.send((True, list(result) if method == "finalize" else result))
        except Exception as error:  # raised again where the call was made
            pipe.send((False, error))


def _serve_state(pipe: Connection, inner: Reconstructor) -> None:
    """Answers on a pipe of its own; reconstructors commit a chunk in one step."""
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            os._exit(0)  # the node is gone: nobody waits for the chunk that may be computed
        try:
            pipe.send((True, getattr(inner, method)(*arguments)))
        except Exception as error:  # raised again where the call was made
            pipe.send((False, error))


def _unpacked(method: str, memory: str | None, arguments: tuple) -> tuple:
    if memory is None:
        return arguments
    block = SharedMemory(name=memory)
    try:
        if method == "reconstruct":
            return (_with_images(arguments[0], block), *arguments[1:])
        return ([_with_images(item, block) for item in arguments[0]],)
    finally:
        block.close()
