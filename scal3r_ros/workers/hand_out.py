"""Chunks handed out to several workers, so that each is absorbed once or not at all.

An attempt at some chunks ends in one of four ways, and this is the only place that decides on them:

- *commit*: the memory has absorbed them. What was answered counts, a failed prediction too.
- *read*: it has, but an answer was lost. That prediction is computed again without a trace.
- *blame*: chunks were found to be at fault before anything was absorbed. They are left out.
- *redo*: nothing was absorbed, for reasons that are not the chunks'. They are handed out again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scal3r_ros.reconstruct.interface import OutOfDeviceMemory, ReconstructionFailed
from scal3r_ros.records import Chunk, ChunkPrediction

Result = ChunkPrediction | ReconstructionFailed
Fault = ReconstructionFailed | OutOfDeviceMemory
log = logging.getLogger(__name__)


class WorkersUnavailable(RuntimeError):
    """There is no worker that could take a chunk."""


@dataclass(frozen=True)
class Attempt:
    """What is known of an attempt, by chunk index; a chunk in neither got no answer that counts."""

    absorbed: Mapping[int, Result] = field(default_factory=dict)
    at_fault: Mapping[int, Fault] = field(default_factory=dict)
    reason: str = ""
    """Why there is no more, for the log."""


class Hands(Protocol):
    """Workers: over ROS in lockstep, over ROS without barrier, or under torchrun."""

    all_or_none: bool
    """Whether the chunks of an attempt are absorbed together. Otherwise each is absorbed for
    itself, and once however often it is handed out."""

    def attempt(self, chunks: Sequence[Chunk]) -> Attempt:
        """Hand out chunks and wait for what becomes of them. Raises `WorkersUnavailable`."""

    def has_absorbed(self) -> bool:
        """Whether the memory absorbed the last attempt, whose answer never came. The processes that
        are left have agreed on it, so the result is final."""

    def read(self, chunk: Chunk) -> Result:
        """A prediction from the memory as it is."""

    def give_up(self, chunks: Sequence[Chunk]) -> None:
        """These will not be handed out again."""


def hand_out(hands: Hands, chunks: Sequence[Chunk], max_attempts: int) -> list[Result]:
    """One result per chunk. `max_attempts` counts attempts that settle nothing.

    Raises `OutOfDeviceMemory` only while nothing is absorbed, so that the caller may send smaller
    chunks.
    """
    results: dict[int, Result] = {}
    try:
        _settle_all(hands, chunks, max_attempts, results)
    except WorkersUnavailable as error:
        unavailable = ReconstructionFailed(str(error))
        return [results.get(chunk.index, unavailable) for chunk in chunks]
    finally:
        hands.give_up(_without(chunks, results))
    return [results[chunk.index] for chunk in chunks]


def _settle_all(
    hands: Hands, chunks: Sequence[Chunk], max_attempts: int, results: dict[int, Result]
) -> None:
    """Fill `results` by chunk index."""
    attempts = 0
    while pending := _without(chunks, results):
        attempt = hands.attempt(pending)
        results |= attempt.absorbed
        if hands.all_or_none and _is_committed(hands, attempt):
            for chunk in _without(pending, results):
                results[chunk.index] = _read(hands, chunk)
        elif attempt.at_fault:
            results |= _blamed(attempt.at_fault, hands.all_or_none)
        elif not attempt.absorbed:
            attempts += 1
            log.warning("%d chunks are done again: %s", len(pending), attempt.reason)
            if attempts == max_attempts:
                raise WorkersUnavailable(f"failed {attempts} times; last: {attempt.reason}")


def _is_committed(hands: Hands, attempt: Attempt) -> bool:
    """Any answer tells for the whole round; without one, the processes that are left are asked."""
    if attempt.absorbed or attempt.at_fault:
        return bool(attempt.absorbed)
    return hands.has_absorbed()


def _read(hands: Hands, chunk: Chunk) -> Result:
    """Only read a chunk that the memory has. If it is too large for the device it fails: cut
    shorter, its parts would be absorbed again."""
    try:
        return hands.read(chunk)
    except OutOfDeviceMemory as error:
        return ReconstructionFailed(f"{error}; the memory has absorbed the chunk")


def _blamed(at_fault: Mapping[int, Fault], all_or_none: bool) -> dict[int, Result]:
    for fault in at_fault.values():
        if all_or_none and isinstance(fault, OutOfDeviceMemory):
            raise fault
    return {index: ReconstructionFailed(str(fault)) for index, fault in at_fault.items()}


def _without(chunks: Sequence[Chunk], results: Mapping[int, Result]) -> list[Chunk]:
    return [chunk for chunk in chunks if chunk.index not in results]
