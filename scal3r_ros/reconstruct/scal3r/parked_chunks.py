"""Chunks as they stand in front of the first memory layer, kept for a second pass."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from scal3r_ros.files import write_text
from scal3r_ros.networks.scal3r.chunk_state import ChunkShell, ChunkState
from scal3r_ros.reconstruct.scal3r.chunk_job import ChunkJob
from scal3r_ros.reconstruct.scal3r.tensor_store import TensorStore

_TOKENS, _IMAGES, _MOVED = "tokens", "images", "moved"


@dataclass(frozen=True)
class _Parked:
    """What is kept of a chunk beside its tensors and images."""

    index: int
    frame_ids: tuple[int, ...]
    order: tuple[int, ...]
    seconds: dict[str, float]
    shell: ChunkShell
    contributed: bool

    @classmethod
    def read(cls, path: Path) -> _Parked:
        values = json.loads(path.read_text())
        shell = values.pop("shell")
        shell["grid"] = tuple(shell["grid"])
        frame_ids, order = tuple(values.pop("frame_ids")), tuple(values.pop("order"))
        return cls(frame_ids=frame_ids, order=order, **values, shell=ChunkShell(**shell))


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
        shell, tensors = job.present_state.split()
        number = len(self._chunks)
        self._store.put((_TOKENS, number), tensors)
        arrays = {"rgb": job.rgb, "descriptors": job.descriptors}
        images = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self._store.put((_IMAGES, number), images)
        order, seconds = tuple(job.order), dict(job.seconds)
        parked = _Parked(job.index, job.frame_ids, order, seconds, shell, contributes)
        self._chunks.append(parked)

    def commit(self) -> None:
        self._committed = len(self._chunks)

    def rollback(self) -> None:
        """Forget what was parked since the last commit."""
        while len(self._chunks) > self._committed:
            self._chunks.pop()
            for kind in (_TOKENS, _IMAGES):
                self._store.drop((kind, len(self._chunks)))

    def save(self, folder: Path) -> int:
        """Write the committed chunks that `folder`, which has those of nobody else, does not hold
        yet; returns the number of all. Raises `SaveFailed`."""
        for number in range(self._committed):
            facts = _file(folder, number, "facts")
            if not facts.exists():
                for kind in (_TOKENS, _IMAGES):
                    self._store.copy_to((kind, number), _file(folder, number, kind))
                write_text(facts, json.dumps(asdict(self._chunks[number])))
        return self._committed

    def load(self, folder: Path, count: int, known: Collection[int]) -> None:
        """Take those of the first `count` chunks that `save` wrote whose index is `known`, where
        none is parked yet; only the last ones can be unknown. Raises
        `ValueError`, `LookupError`, `TypeError` or `OSError` for files that nobody wrote."""
        assert not self._chunks, "chunks of two runs do not mix"
        for number in range(count):
            parked = _Parked.read(_file(folder, number, "facts"))
            if parked.index not in known:
                break
            self._chunks.append(parked)
            for kind in (_TOKENS, _IMAGES):
                self._store.adopt((kind, number), _file(folder, number, kind))
        self.commit()

    def numbers(self, contributed: bool) -> list[int]:
        """Chunks that the memory absorbed, or those that it did not."""
        return [i for i, chunk in enumerate(self._chunks) if chunk.contributed == contributed]

    def states(self) -> ParkedStates:
        """The states of all chunks as they were parked, to be taken on from there; those given
        before are of no use any more."""
        for number in range(len(self._chunks)):
            self._store.drop((_MOVED, number))
        return ParkedStates(self._store, {i: c.shell for i, c in enumerate(self._chunks)})

    def take(self, states: ParkedStates, number: int) -> ChunkJob:
        """A chunk as `states` left it, whose tensors are not needed there any more."""
        state, parked = states.pop_state(number), self._chunks[number]
        images = {k: v.numpy() for k, v in self._store.get((_IMAGES, number)).items()}
        return ChunkJob(
            parked.index,
            parked.frame_ids,
            images["rgb"],
            list(parked.order),
            images["descriptors"],
            state,
            dict(parked.seconds),
        )


class ParkedStates:
    """Chunk states by position, of which only the one in use need be in memory."""

    def __init__(self, store: TensorStore, shells: dict[int, ChunkShell]) -> None:
        self._store, self._shells = store, shells
        self._numbers = list(shells)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[ChunkState]:
        for position in range(len(self)):
            yield self[position]

    def __getitem__(self, position: int) -> ChunkState:
        return self._state(self._numbers[position])

    def __setitem__(self, position: int, state: ChunkState) -> None:
        number = self._numbers[position]
        self._shells[number], tensors = state.split()
        self._store.put((_MOVED, number), tensors)

    def only(self, numbers: Sequence[int]) -> ParkedStates:
        """Some of them; what happens to those happens here too."""
        part = ParkedStates(self._store, self._shells)
        part._numbers = list(numbers)
        return part

    def pop_state(self, number: int) -> ChunkState:
        """The state of chunk `number`, whose tensors are forgotten here."""
        state = self._state(number)
        self._store.drop((_MOVED, number))
        return state

    def _state(self, number: int) -> ChunkState:
        moved = (_MOVED, number)
        kept = moved if moved in self._store else (_TOKENS, number)
        return self._shells[number].joined(self._store.get(kept))


def _file(folder: Path, number: int, kind: str) -> Path:
    return folder / f"{number:06d}_{kind}.{'json' if kind == 'facts' else 'pt'}"
