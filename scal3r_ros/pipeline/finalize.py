"""Every chunk that the network was asked for, in order, so that the map can be built again from
better predictions of the same chunks (memory.mode finalize)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scal3r_ros.mapping.loop_closure import LoopCandidate
from scal3r_ros.pipeline.live_map import MapAssembly
from scal3r_ros.pipeline.loops import LoopSearch, LoopTrial
from scal3r_ros.pipeline.outlines import ChunkOutline
from scal3r_ros.reconstruct.interface import KeepsChunks, ReconstructionFailed, Reconstructor
from scal3r_ros.records import ChunkPrediction, Event

_FOLDER = "chunks"
"""With a saved map: what the reconstructor needs to compute the chunks again."""


@dataclass(frozen=True)
class _Past:
    """A chunk of the stream, or one that tried a loop."""

    outline: ChunkOutline
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
    def last(self) -> ChunkOutline:
        """The newest chunk."""
        return next(reversed(self._known.values())).outline

    def add(self, outline: ChunkOutline, trial: LoopTrial | None = None) -> None:
        """Remember a chunk, failed or not."""
        if self._chunks is not None:
            self._chunks[outline.index] = _Past(outline, trial)

    def build_again(
        self,
        outcomes: Iterable[ChunkPrediction | ReconstructionFailed],
        assembly: MapAssembly,
        loops: LoopSearch,
    ) -> tuple[MapAssembly, list[Event]]:
        """The map anew from other predictions of the same chunks; `assembly`, the old one, is left
        as it is."""
        events: list[Event] = []
        anew = assembly.emptied()
        for outcome in outcomes:
            if isinstance(outcome, ReconstructionFailed):
                events.append(Event("chunk_failed", str(outcome)))
                anew.close()
                continue
            past = self._known[outcome.chunk_index]
            if past.trial is None:
                events += anew.join(past.outline, outcome).events
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
        return {"history": [asdict(past) for past in self._chunks.values()], "kept_chunks": kept}

    def load(self, reconstructor: Reconstructor, folder: Path, facts: dict[str, Any]) -> None:
        """Take over what `save` wrote; without that, nothing can be built again."""
        self._chunks = None
        if self._wanted and "history" in facts and isinstance(reconstructor, KeepsChunks):
            reconstructor.load_chunks(folder / _FOLDER, facts["kept_chunks"])
            past = [_read(values) for values in facts["history"]]
            self._chunks = {chunk.outline.index: chunk for chunk in past}

    @property
    def _known(self) -> dict[int, _Past]:
        if self._chunks is None:
            raise ValueError(
                "the chunks of this map were not kept, so they cannot be mapped again; reset, and "
                "map with memory.mode finalize"
            )
        return self._chunks


def _read(values: dict[str, Any]) -> _Past:
    outline, trial = ChunkOutline.read(values["outline"]), values["trial"]
    if trial is None:
        return _Past(outline)
    first, second = trial["windows"]
    candidate = LoopCandidate(**trial["candidate"])
    return _Past(outline, LoopTrial(candidate, tuple(trial["ends"]), (tuple(first), tuple(second))))
