"""The network in a process of its own (worker.mode process), where it cannot hold up callbacks.

Images cross in shared memory, everything else through a pipe. The process is started afresh, never
forked: a fork after ROS or CUDA has begun would inherit their locks and threads.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
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
from scal3r_ros.records import Chunk, ChunkPrediction
from scal3r_ros.records_arrays import Packed, pack_chunk, unpack_chunk

SHARED_MEMORY = Path("/dev/shm")
"""Where shared blocks live on Linux; elsewhere the system answers for them."""


class ProcessLost(MemoryLost):
    """The network's process has ended, and the memory with it; the message says how."""


class ProcessReconstructor:
    """Implements `Reconstructor` by one child process; loading errors are raised at once."""

    def __init__(
        self, config: Config, open_inner: Callable[[Config], Reconstructor] = open_reconstructor
    ) -> None:
        self._config, self._open_inner = config, open_inner
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
            return self._ask("reconstruct", images.name, images.chunks[0], contribute)

    def reconstruct_round(
        self, chunks: Sequence[Chunk]
    ) -> list[ChunkPrediction | ReconstructionFailed]:
        with _Images(chunks) as images:
            return self._ask("reconstruct_round", images.name, images.chunks)

    def finalize(self) -> list[ChunkPrediction | ReconstructionFailed]:
        return self._ask("finalize", None)

    def reset(self) -> None:
        """Also after the process has ended: another one is started."""
        if self._process.is_alive():
            self._ask("reset", None)
        else:
            self.close()
            self._start()

    def state(self) -> MemoryState:
        """The memory after the last finished chunk, also while one is being computed."""
        return self._ask_memory("state")

    def save_chunks(self, folder: Path) -> int:
        """As `KeepsChunks`, if `keeps_chunks`; also while a chunk is being computed."""
        return self._ask_memory("save_chunks", folder)

    def load_chunks(self, folder: Path, count: int) -> None:
        """As `KeepsChunks`, if `keeps_chunks`."""
        self._ask("load_chunks", None, folder, count)

    def restore(self, state: MemoryState) -> None:
        self._ask("restore", None, state)

    def close(self) -> None:
        """End the process, in the middle of a chunk if need be."""
        self._process.kill()  # it holds nothing that has to be written, and ignores SIGTERM
        self._process.join()
        self._pipe.close()
        self._state_pipe.close()

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
        return ProcessLost(
            f"the network's process has ended with code {self._process.exitcode}; reset or "
            f"configure the node again"
        )


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
