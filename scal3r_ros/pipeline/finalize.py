"""Every chunk that the network was asked for, in order, so that the map can be built again from
better predictions of the same chunks (memory.mode finalize)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from scal3r_ros.mapping.long_context import ContextWindow
from scal3r_ros.mapping.loop_closure import LoopCandidate
from scal3r_ros.pipeline import joining
from scal3r_ros.pipeline.far_edges import FarEdges
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.pipeline.loops import LoopSearch, LoopTrial
from scal3r_ros.pipeline.progress import Progress
from scal3r_ros.reconstruct.interface import (
    KeepsChunks,
    Outcome,
    ReconstructionFailed,
    Reconstructor,
    keeps_chunks,
)
from scal3r_ros.records import ChunkSummary, Event

_FOLDER = "chunks"
"""With a saved map: what the reconstructor needs to compute the chunks again."""


@dataclass(frozen=True)
class _Past:
    """A chunk of the stream, or one that tried a loop or looked far back."""

    summary: ChunkSummary
    trial: LoopTrial | ContextWindow | None = None
    proven: bool = False
    """Whether the trial became an edge of the graph."""
    ends_step: bool = False
    """Whether the map was corrected after it, if that was due, before anything else was added."""


@dataclass(frozen=True)
class Rebuilt:
    """A map that was built again, beside the one that it may replace."""

    live_map: LiveMap
    loops: LoopSearch
    events: tuple[Event, ...]


class ChunkHistory:
    """Empty, and not to be built from, unless it is `wanted`."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._chunks: dict[int, _Past] | None = {} if wanted else None
        self._kept = 0

    @property
    def empty(self) -> bool:
        """Whether there was no chunk yet; raises `ValueError` where they were not kept."""
        return not self._known

    @property
    def remembers(self) -> bool:
        """Whether a second pass can be made."""
        return self._chunks is not None

    @property
    def last(self) -> ChunkSummary:
        """The newest chunk."""
        return next(reversed(self._known.values())).summary

    def add(
        self,
        summary: ChunkSummary,
        trial: LoopTrial | ContextWindow | None = None,
        proven: bool = False,
    ) -> None:
        """Remember a chunk, failed or not, or a trial, `proven` or not."""
        if self._chunks is not None:
            self._chunks[summary.index] = _Past(summary, trial, proven)

    def end_step(self) -> None:
        """Remember that the map is corrected now, if that is due."""
        if self._chunks:
            index, newest = next(reversed(self._chunks.items()))
            self._chunks[index] = replace(newest, ends_step=True)

    def build_again(
        self,
        outcomes: Iterable[Outcome],
        live_map: LiveMap,
        loops: LoopSearch,
        far: FarEdges,
        records: Path,
        progress: Progress,
    ) -> Rebuilt:
        """The map anew from other predictions of the same chunks, in the same steps; `live_map` and
        `loops`, the old ones, are left as they are. `records` is an empty folder."""
        events: list[Event] = []
        anew, search = live_map.emptied(), loops.emptied(records)
        count = len(self._known)
        for number, outcome in enumerate(outcomes, start=1):
            progress.at(f"chunk {number} of {count}", number / (count + 1))
            if isinstance(outcome, ReconstructionFailed):
                events.append(Event("chunk_failed", str(outcome)))
                joining.close(anew)
                continue
            past = self._known[outcome.chunk_index]
            if past.trial is None:
                events += joining.join(anew, past.summary, outcome).events
                search.renew(outcome, loops.records)
                events += far.span(outcome, search.records, anew)
            else:
                if isinstance(past.trial, ContextWindow):
                    reason = far.tie(past.trial, outcome, search.records, anew)
                else:
                    reason = search.tie(past.trial, outcome, anew)
                if past.proven == bool(reason):  # it was otherwise the first time
                    events.append(past.trial.event(reason, outcome.chunk_index))
            if past.ends_step:
                anew.correct_if_due()
                anew.fuse_repeats()
        joining.confirm(anew)
        anew.correct()
        anew.trajectory.take_told(live_map.trajectory)
        if not anew.take_metres_of(live_map):
            anew.fix_scale()
        return Rebuilt(anew, search, tuple(events))

    def save(self, reconstructor: Reconstructor, folder: Path) -> dict[str, Any]:
        """Facts for a map that is saved in `folder`, where the chunks go if that is possible."""
        if self._chunks is None or not keeps_chunks(reconstructor):
            return {}
        kept = cast(KeepsChunks, reconstructor).save_chunks(folder / _FOLDER)
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
        if self._chunks is not None and keeps_chunks(reconstructor):
            cast(KeepsChunks, reconstructor).load_chunks(folder / _FOLDER, self._kept, self._chunks)
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
    marks = {"proven": past.proven, "ends_step": past.ends_step}
    return {"outline": asdict(past.summary), "trial": trial, **marks}


def _read(values: Mapping[str, Any]) -> _Past:
    summary, trial = ChunkSummary.read(values["outline"]), values["trial"]
    marks = values.get("proven", False), values.get("ends_step", True)  # not in older maps
    if trial is None:
        return _Past(summary, None, *marks)
    if "owners" in trial:
        window = ContextWindow(*(tuple(trial[k]) for k in ("chunks", "frame_ids", "owners")))
        return _Past(summary, window, *marks)
    first, second = trial["windows"]
    candidate, ends = LoopCandidate(**trial["candidate"]), tuple(trial["ends"])
    return _Past(summary, LoopTrial(candidate, ends, (tuple(first), tuple(second))), *marks)
