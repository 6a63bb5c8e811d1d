"""Every chunk that the network was asked for, in order, so that the map can be built again from
better predictions of the same chunks (memory.mode finalize)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scal3r_ros.mapping.loop_closure import LoopCandidate
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.pipeline.loops import LoopSearch, LoopTrial
from scal3r_ros.reconstruct.interface import (
    KeepsChunks,
    Outcome,
    ReconstructionFailed,
    Reconstructor,
)
from scal3r_ros.records import ChunkSummary, Event

_FOLDER = "chunks"
"""With a saved map: what the reconstructor needs to compute the chunks again."""


@dataclass(frozen=True)
class _Past:
    """A chunk of the stream, or one that tried a loop."""

    summary: ChunkSummary
    trial: LoopTrial | None = None


class ChunkHistory:
    """Empty, and not to be built from, unless it is `wanted`."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._chunks: dict[int, _Past] | None = {} if wanted else None

    @property
    def empty(self) -> bool:
        """Whether there was no chunk yet; raises `ValueError` where they were not kept."""
        return not self._known

    @property
    def last(self) -> ChunkSummary:
        """The newest chunk."""
        return next(reversed(self._known.values())).summary

    def add(self, summary: ChunkSummary, trial: LoopTrial | None = None) -> None:
        """Remember a chunk, failed or not."""
        if self._chunks is not None:
            self._chunks[summary.index] = _Past(summary, trial)

    def build_again(
        self,
        outcomes: Iterable[Outcome],
        live_map: LiveMap,
        loops: LoopSearch,
    ) -> tuple[LiveMap, list[Event]]:
        """The map anew from other predictions of the same chunks; `live_map`, the old one, is left
        as it is."""
        events: list[Event] = []
        anew = live_map.emptied()
        for outcome in outcomes:
            if isinstance(outcome, ReconstructionFailed):
                events.append(Event("chunk_failed", str(outcome)))
                anew.close()
                continue
            past = self._known[outcome.chunk_index]
            if past.trial is None:
                events += anew.join(past.summary, outcome).events
                loops.renew(outcome)
            else:
                loops.tie(past.trial, outcome, anew)
        anew.confirm()
        anew.correct()
        anew.fix_scale()
        return anew, events

    def save(self, reconstructor: Reconstructor, folder: Path) -> dict[str, Any]:
        """Facts for a map that is saved in `folder`, where the chunks go if that is possible."""
        if self._chunks is None or not isinstance(reconstructor, KeepsChunks):
            return {}
        kept = reconstructor.save_chunks(folder / _FOLDER)
        return {"history": [_packed(past) for past in self._chunks.values()], "kept_chunks": kept}

    def read(self, facts: Mapping[str, Any]) -> None:
        """Take over what `save` wrote; without that, nothing can be built again."""
        self._chunks = None
        if self._wanted and "history" in facts:
            past = [_read(values) for values in facts["history"]]
            self._chunks = {chunk.summary.index: chunk for chunk in past}
            self._kept = int(facts["kept_chunks"])

    def load_chunks(self, reconstructor: Reconstructor, folder: Path) -> None:
        """Let the reconstructor take over its part of what `save` wrote."""
        if self._chunks is not None and isinstance(reconstructor, KeepsChunks):
            reconstructor.load_chunks(folder / _FOLDER, self._kept)
        else:
            self._chunks = None

    @property
    def _known(self) -> dict[int, _Past]:
        if self._chunks is None:
            raise ValueError(
                "the chunks of this map were not kept, so they cannot be mapped again; reset, and "
                "map with memory.mode finalize"
            )
        return self._chunks


def _packed(past: _Past) -> dict[str, Any]:
    trial = None if past.trial is None else asdict(past.trial)
    return {"outline": asdict(past.summary), "trial": trial}


def _read(values: Mapping[str, Any]) -> _Past:
    summary, trial = ChunkSummary.read(values["outline"]), values["trial"]
    if trial is None:
        return _Past(summary)
    first, second = trial["windows"]
    candidate = LoopCandidate(**trial["candidate"])
    return _Past(summary, LoopTrial(candidate, tuple(trial["ends"]), (tuple(first), tuple(second))))
