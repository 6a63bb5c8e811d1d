"""Frames become chunks, which wait until there are as many as the reconstructor takes at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scal3r_ros.config import ChunkConfig
from scal3r_ros.mapping.chunking import Chunker
from scal3r_ros.reconstruct.interface import (
    Outcome,
    OutOfDeviceMemory,
    ReconstructionFailed,
    Reconstructor,
    attempt,
    events_of,
)
from scal3r_ros.records import Chunk, Event, Frame


@dataclass(frozen=True)
class Reconstructed:
    """A chunk that has been through the reconstructor."""

    chunk: Chunk
    outcome: Outcome
    events: tuple[Event, ...] = ()
    """What happened on the way."""


class ChunkQueue:
    """A round is what the reconstructor handles side by side: `Reconstructor.round_size` chunks."""

    def __init__(self, config: ChunkConfig) -> None:
        self._config = config
        self.chunker = Chunker(config)
        self.waiting: list[Chunk] = []
        self.contributed = 0
        """Chunks of this map that the memory has absorbed."""
        self.absorbed = 0
        """How many of those that wait it has absorbed as well: their round ended while the map was
        being saved. They only read it, so that nothing is absorbed twice."""

    @property
    def frames(self) -> tuple[Frame, ...]:
        """All frames that wait, in a chunk or for one; the chunk before has mapped some of them."""
        waiting = {frame.id: frame for chunk in self.waiting for frame in chunk.frames}
        waiting |= {frame.id: frame for frame in self.chunker.pending}
        return tuple(waiting.values())

    @property
    def untried(self) -> tuple[Frame, ...]:
        """Frames of chunks that wait, and those that fill none yet. The overlap with the chunk
        before is kept for the next one, but has been through the reconstructor."""
        waiting = {frame.id: frame for chunk in self.waiting for frame in chunk.frames}
        new = self.chunker.pending[len(self.chunker.overlap_ids) :]
        return tuple((waiting | {frame.id: frame for frame in new}).values())

    def push(self, frame: Frame) -> None:
        """Take the next frame."""
        chunk = self.chunker.push(frame)
        if chunk is not None:
            self.waiting.append(chunk)

    def cut_rest(self) -> bool:
        """Let the frames that fill no chunk wait as a short one; False if there are none."""
        chunk = self.chunker.flush()
        if chunk is not None:
            self.waiting.append(chunk)
        return chunk is not None

    def full(self, reconstructor: Reconstructor) -> bool:
        """Whether a round is complete."""
        size = self.absorbed or reconstructor.round_size
        return size is not None and len(self.waiting) >= size

    def absorbed_by(self, version: int, round_size: int | None) -> int:
        """How many of those that wait a memory has absorbed that counts `version` chunks."""
        more = version - self.contributed
        return more if 0 < more <= len(self.waiting[:round_size]) else 0

    def reconstruct_round(self, reconstructor: Reconstructor) -> list[Reconstructed]:
        """What waits, at most a round of it. When a chunk does not fit the device, all that wait
        are cut shorter. If this is interrupted the chunks wait on, if it fails they are dropped."""
        events: list[Event] = []
        while True:
            due = self.waiting[: self.absorbed or reconstructor.round_size]
            try:
                if self.absorbed:
                    outcomes = [attempt(reconstructor, chunk, contribute=False) for chunk in due]
                else:
                    outcomes = reconstructor.reconstruct_round(due)
            except OutOfDeviceMemory as error:
                if not self._can_shrink(due):
                    self._drop(due)
                    raise
                events.append(self._shrink(due, error))
            except Exception:
                self._drop(due)
                raise
            else:
                self._drop(due)
                events += events_of(reconstructor)
                self.contributed += sum(not isinstance(o, ReconstructionFailed) for o in outcomes)
                notes = [tuple(events), *[()] * (len(due) - 1)]
                return [Reconstructed(*item) for item in zip(due, outcomes, notes, strict=True)]

    def _can_shrink(self, due: Sequence[Chunk]) -> bool:
        return max(len(chunk.frames) for chunk in due) > self._config.overlap + 1

    def _shrink(self, due: Sequence[Chunk], error: OutOfDeviceMemory) -> Event:
        longest = max(len(chunk.frames) for chunk in due)
        size = max(longest * 3 // 4, self._config.overlap + 1)
        self.waiting, self.absorbed = self.chunker.recut(self.waiting, size), 0
        text = f"{error}; chunks have {size} frames from now on"
        return Event("chunk_shrunk", text, due[0].index)

    def _drop(self, due: Sequence[Chunk]) -> None:
        del self.waiting[: len(due)]
        self.absorbed = 0
