"""The one interface between the mapping method and whatever turns a chunk of images into geometry.

Implemented by the Scal3R network, by structure from motion (`sfm`), by remote GPU workers, and by
the oracle of the tests. Other chunk-wise networks with other memories fit behind it: nothing
outside a reconstructor knows what its memory is made of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from scal3r_ros.records import Chunk, ChunkPrediction, Event


class ReconstructionFailed(RuntimeError):
    """A chunk could not be reconstructed; the message says why. The stream goes on without it."""


class ChunksAtFault(ReconstructionFailed):
    """Some chunks of a round cannot be absorbed. The memory has absorbed none of the round, and the
    others can be done again without them."""

    def __init__(self, reasons: Mapping[int, str]):
        super().__init__(reasons)
        self.reasons = reasons
        """By chunk index."""

    def __str__(self) -> str:
        return "; ".join(self.reasons.values())

    @property
    def failures(self) -> dict[int, ReconstructionFailed]:
        """What each of them alone has come to, by chunk index."""
        return {index: ReconstructionFailed(reason) for index, reason in self.reasons.items()}


class OutOfDeviceMemory(RuntimeError):
    """The chunk does not fit into the device's memory; the caller may retry with fewer frames
    or a smaller slice."""


class MemoryLost(RuntimeError):
    """What holds the memory has ended or does not answer; `reason` says which. A map can be saved
    without it, or with the memory as it was known last."""

    def __init__(self, reason: str, last_known: MemoryState | None = None) -> None:
        super().__init__(reason)
        self.reason, self.last_known = reason, last_known


Outcome = ChunkPrediction | ReconstructionFailed
"""What became of one chunk of a round."""


@dataclass(frozen=True)
class MemoryState:
    """A reconstructor's memory as plain arrays, to save, restore and hand over. Empty for one
    without memory."""

    kind: str
    """Name of the reconstructor that understands it."""
    fingerprint: str
    """Hash of the weights it belongs to; another checkpoint's memory is refused."""
    version: int
    """Number of chunks absorbed."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def require(self, kind: str, fingerprint: str) -> None:
        """Raise `ValueError` if another reconstructor, or one with other weights, made it."""
        if self.kind != kind:
            raise ValueError(
                f"the memory belongs to reconstructor {self.kind!r}, this is {kind!r}; reset it "
                f"instead"
            )
        if self.fingerprint != fingerprint:
            raise ValueError(
                f"the memory belongs to weights {self.fingerprint[:12] or 'unknown'}, this network "
                f"has {fingerprint[:12]}; load the checkpoint it was made with, or reset the memory"
            )


@runtime_checkable
class Reconstructor(Protocol):
    """Chunks of images in, predictions out, with an explicit memory."""

    name: str
    round_size: int | None
    """How many chunks it handles side by side; 1 unless there are several workers. None: all chunks
    of the sequence at once (memory.mode batch)."""

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        """Reconstruct one chunk; with `contribute` the memory absorbs it. Raises
        `ReconstructionFailed`."""

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        """Reconstruct up to `round_size` consecutive chunks that see one memory; all of them
        contribute, but for those that cannot be absorbed."""

    def reset(self) -> None:
        """Forget everything absorbed."""

    def state(self) -> MemoryState:
        """The memory as arrays."""

    def restore(self, state: MemoryState) -> None:
        """Replace the memory; raises `ValueError` and keeps the present one if `state` does not
        fit."""


def attempt(reconstructor: Reconstructor, chunk: Chunk, contribute: bool = True) -> Outcome:
    """One chunk of a round: its prediction, or why there is none."""
    try:
        return reconstructor.reconstruct(chunk, contribute=contribute)
    except ReconstructionFailed as failure:
        return failure


class Finalizes(Reconstructor, Protocol):
    """A reconstructor that can compute all chunks again (memory.mode finalize)."""

    def finalize(self) -> Iterable[Outcome]:
        """All chunks again, in order, with the memory of the whole run."""


@runtime_checkable
class KeepsChunks(Finalizes, Protocol):
    """A reconstructor that can do so after a restart too."""

    def save_chunks(self, folder: Path) -> int:
        """Write what `finalize` needs and `folder` does not hold yet; returns the number of chunks.
        Raises `SaveFailed`."""

    def load_chunks(self, folder: Path, count: int, known: Collection[int]) -> None:
        """Take of the first `count` chunks of `folder` those whose index is `known`, instead of
        those kept so far, which stay if that fails: a chunk that ended while the map was being
        saved waits in the map, and will come again. Raises `ValueError`, `LookupError`, `TypeError`
        or `OSError` for files that nobody wrote."""


class TellsEvents(Protocol):
    """A reconstructor to which things happen that a user has to know of."""

    def take_events(self) -> list[Event]:
        """What happened since this was asked last."""


def events_of(reconstructor: Reconstructor) -> list[Event]:
    """What a reconstructor has to tell, if it is a `TellsEvents`."""
    told = getattr(reconstructor, "take_events", None)
    return told() if told is not None else []


def known_memory(reconstructor: Reconstructor) -> MemoryState | None:
    """The memory, or how it was known last if it is lost; None if that was never told."""
    try:
        return reconstructor.state()
    except MemoryLost as lost:
        return lost.last_known


def keeps_chunks(reconstructor: Reconstructor) -> bool:
    """Whether it, and what it passes calls on to, is a `KeepsChunks`."""
    passed_on = getattr(reconstructor, "keeps_chunks", True)
    return isinstance(reconstructor, KeepsChunks) and passed_on


def round_of_at_least(round_size: int | None, wanted: int) -> int | None:
    """A round size that is raised to `wanted`; all chunks at once stay all chunks at once."""
    return None if round_size is None else max(round_size, wanted)
