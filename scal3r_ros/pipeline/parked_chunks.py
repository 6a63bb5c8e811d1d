"""Chunks as they stand in front of the first memory layer, kept for a second pass."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from scal3r_ros.model.chunk_state import ChunkState
from scal3r_ros.pipeline.chunk_job import ChunkJob
from scal3r_ros.pipeline.tensor_store import TensorStore

_NO_IMAGES = np.zeros((0, 0, 0, 3), np.uint8)
_IMAGES = "images"


@dataclass(frozen=True)
class _Parked:
    """What is kept of a chunk beside its tensors."""

    job: ChunkJob
    """Without images and state."""
    shell: ChunkState
    contributed: bool


class ParkedChunks:
    """In the order given; tensors and images beyond `max_bytes` are on disk."""

    def __init__(self, max_bytes: float, folder: Path | None = None) -> None:
        self._store = TensorStore(max_bytes, folder)
        self._chunks: list[_Parked] = []
        self._committed = 0

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._store.nbytes

    @property
    def spilled(self) -> int:
        """Number of groups of tensors on disk."""
        return self._store.spilled

    def park(self, job: ChunkJob, contributes: bool) -> None:
        """Keep a chunk as it stands now; final with `commit`."""
        shell, tensors = job.state.split()
        number = len(self._chunks)
        self._store.put(("parked", number), tensors)
        self._store.put((_IMAGES, number), {_IMAGES: torch.from_numpy(job.rgb)})
        light = replace(job, rgb=_NO_IMAGES, state=None, seconds=dict(job.seconds))
        self._chunks.append(_Parked(light, shell, contributes))

    def commit(self) -> None:
        self._committed = len(self._chunks)

    def rollback(self) -> None:
        """Forget what was parked since the last commit."""
        while len(self._chunks) > self._committed:
            self._chunks.pop()
            for kind in ("parked", _IMAGES):
                self._store.drop((kind, len(self._chunks)))

    def numbers(self, contributed: bool) -> list[int]:
        """Chunks that the memory absorbed, or those that it did not."""
        return [i for i, chunk in enumerate(self._chunks) if chunk.contributed == contributed]

    def states(self, numbers: Sequence[int]) -> ParkedStates:
        """The states of some chunks, to be taken on from where they were parked."""
        return ParkedStates(self._store, {i: self._chunks[i].shell for i in numbers})

    def take(self, states: ParkedStates, number: int) -> ChunkJob:
        """A chunk as `states` left it, whose tensors are not needed there any more."""
        state = states.pop_state(number)
        images = self._store.get((_IMAGES, number))[_IMAGES].numpy()
        job = self._chunks[number].job
        return replace(job, rgb=images, state=state, seconds=dict(job.seconds))


class ParkedStates(MutableSequence[ChunkState]):
    """A list of chunk states of which only the one in use need be in memory."""

    def __init__(self, store: TensorStore, shells: dict[int, ChunkState]) -> None:
        self._store, self._shells = store, shells
        self._numbers = list(shells)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, position: int) -> ChunkState:
        return self._state(self._numbers[position])

    def __setitem__(self, position: int, state: ChunkState) -> None:
        number = self._numbers[position]
        self._shells[number], tensors = state.split()
        self._store.put(("moved", number), tensors)

    def __delitem__(self, position: int) -> None:
        raise TypeError("the states of parked chunks cannot be removed")

    def insert(self, position: int, state: ChunkState) -> None:
        raise TypeError("no state can be added to those of parked chunks")

    def only(self, numbers: Sequence[int]) -> ParkedStates:
        """Some of them; what happens to those happens here too."""
        part = ParkedStates(self._store, self._shells)
        part._numbers = list(numbers)
        return part

    def pop_state(self, number: int) -> ChunkState:
        """The state of chunk `number`, whose tensors are forgotten here."""
        state = self._state(number)
        self._store.drop(("moved", number))
        return state

    def _state(self, number: int) -> ChunkState:
        moved = ("moved", number)
        kept = moved if moved in self._store else ("parked", number)
        return self._shells[number].joined(self._store.get(kept))
