"""From frames that look alike to verified loop edges, with one loop chunk per candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scal3r_ros.config import AlignmentConfig, LocalisationConfig, LoopConfig
from scal3r_ros.files import explained, link_or_copy, sync_folder
from scal3r_ros.mapping.alignment import align
from scal3r_ros.mapping.joint_overlap import joint_overlap
from scal3r_ros.mapping.loop_closure import (
    LoopCandidate,
    LoopDetector,
    LoopVerdict,
    LoopVerifier,
    loop_window,
    refused_loop,
)
from scal3r_ros.mapping.loop_records import LoopRecords, NoRecord, reduce_prediction
from scal3r_ros.mapping.place_check import place_agreement
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.pipeline.map_change import MapChange
from scal3r_ros.records import Chunk, ChunkPrediction, Event, Frame

RECORDS = "loop_records"
"""Folder of the records in the folder that goes with a saved map."""


ANCHOR_STEPS = (10, 20, 30)
"""Frames by which one end of a pair is moved that did not fit."""
MISPLACED = ("alignment_failed", "no_overlap")
"""Reasons to look beside."""
_SHORTEST = 2
"""Frames around each end that a loop chunk needs."""


class AnotherPlace(ValueError):
    """Two places are not one, by their images."""


@dataclass(frozen=True)
class LoopTrial:
    """Two places that may be one: frames around each end, to be reconstructed together."""

    candidate: LoopCandidate
    ends: tuple[int, int]
    """Chunks that own the two frames, the earlier one first."""
    windows: tuple[tuple[int, ...], tuple[int, ...]]
    """Frame ids around each end."""

    @property
    def name(self) -> str:
        found = self.candidate
        return f"frames {found.match_id} and {found.frame_id} (similarity {found.similarity:.2f})"

    @property
    def frames(self) -> tuple[int, int]:
        """Ids of the two frames that look alike, the earlier one first."""
        return self.candidate.match_id, self.candidate.frame_id

    def event(self, reason: str, chunk_index: int) -> Event:
        """What a user is told of the trial; `reason` says why it proves no loop, if it does not."""
        name = "loop_rejected" if reason else "loop_closed"
        return Event(name, f"{self.name} {reason}".strip(), chunk_index)

    def halved(self) -> tuple[LoopTrial, ...]:
        """The same trial with half of the frames around each end; none if it is that short."""
        first, second = (
            loop_window(frame_id, window, len(window) // 2)
            for frame_id, window in zip(self.frames, self.windows)
        )
        enough = min(len(first), len(second)) >= _SHORTEST
        return (replace(self, windows=(first, second)),) if enough else ()


class LoopSearch:
    """Descriptors and records of all frames so far."""

    def __init__(
        self,
        config: LoopConfig,
        alignment: AlignmentConfig,
        folder: Path,
        proof: LocalisationConfig | None = None,
        records_all: bool = False,
    ) -> None:
        """`proof`: what the images of a loop must show that joins parts of the map whose places
        say nothing about each other. `records_all`: keep records of chunks that no loop can come
        back to as well."""
        self._config, self._alignment, self._records_all = config, alignment, records_all
        self._proof = proof or LocalisationConfig()
        self.detector = LoopDetector(config)
        self.records = LoopRecords(folder, config.max_megabytes)
        self._verifier = LoopVerifier(config)

    def follow(self, config: LoopConfig) -> None:
        """Search differently from now on; what is known of old places stays."""
        self._config = self.detector.config = self._verifier.config = config
        self.records.max_megabytes = config.max_megabytes

    def record(self, prediction: ChunkPrediction, frames: Mapping[int, Frame]) -> None:
        """Keep what a later loop through this chunk needs."""
        looked_for = self._config.enabled and prediction.descriptors is not None
        if looked_for or self._records_all:
            self._put(prediction, frames)

    def emptied(self, folder: Path) -> LoopSearch:
        """A search for the same map built again: it knows all places, but no loop waits for
        another one and nothing is recorded."""
        fresh = LoopSearch(self._config, self._alignment, folder, self._proof, self._records_all)
        fresh.detector = self.detector
        return fresh

    def renew(self, prediction: ChunkPrediction, older: LoopRecords) -> None:
        """Record new geometry of a chunk with the images that `older` has of it."""
        if prediction.chunk_index in older:
            recorded = older.frame_ids(prediction.chunk_index)
            both = [i for i in prediction.frame_ids if i in recorded]
            frames = older.frames(prediction.chunk_index, both)
            self._put(prediction.of_frames(both), {frame.id: frame for frame in frames})

    def state(self) -> dict[str, np.ndarray]:
        """Descriptors and open verdicts as arrays; the records are files already."""
        found = {f"loops.{k}": v for k, v in self.detector.state().items()}
        return found | {f"verdicts.{k}": v for k, v in self._verifier.state().items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue a saved search."""
        groups: dict[str, dict[str, np.ndarray]] = {"loops": {}, "verdicts": {}}
        for name, array in arrays.items():
            group, _, item = name.partition(".")
            if group in groups:
                groups[group][item] = array
        self.detector = LoopDetector.restore(self._config, groups["loops"])
        self._verifier.restore(groups["verdicts"])

    def copy_records(self, folder: Path) -> None:
        """Put the records into the folder that goes with a saved map."""
        _mirror(self.records.folder, folder / RECORDS)

    def fetch_records(self, folder: Path) -> None:
        """Take over the records of a saved map, without those that are damaged."""
        _mirror(folder / RECORDS, self.records.folder)
        self.records = LoopRecords(self.records.folder, self._config.max_megabytes)
        strange = [path.name for path in (folder / RECORDS).glob("*.npz") if not path.is_file()]
        self.records.damaged += [f"{name} is no regular file" for name in strange]

    def trials(self, change: MapChange, live_map: LiveMap) -> list[LoopTrial]:
        """Remember frames whose owner is final; which older places do they look like?"""
        trials = []
        for prediction, frame_ids in change.settled:
            if prediction.descriptors is None:
                continue
            rows = [prediction.frame_ids.index(i) for i in frame_ids]
            for candidate in self.detector.add(frame_ids, prediction.descriptors[rows]):
                trial = self._trial(candidate, live_map)
                if trial is not None:
                    trials.append(trial)
        return trials

    def chunk(
        self, trial: LoopTrial, index: int, first_size: tuple[int, int] | None, session: int
    ) -> Chunk:
        """The loop chunk: the frames of both windows in order of time; raises `NoRecord`."""
        frames = [
            frame
            for end, window in zip(trial.ends, trial.windows)
            for frame in self.records.frames(end, window)
        ]
        return Chunk(index, session, tuple(frames), kind="loop", first_size=first_size)

    def tie(self, trial: LoopTrial, prediction: ChunkPrediction, live_map: LiveMap) -> str:
        """Add the edges that a loop chunk proves; returns why it proves none, or nothing."""
        try:
            verdicts = self._judge(trial, prediction, live_map)
        except (NoRecord, AnotherPlace) as refused:
            return str(refused)
        for verdict in verdicts:
            if verdict.accepted:
                live_map.graph.add_edge(verdict.a, verdict.b, verdict.S_a_b, "loop", verdict.sigma)
        return "" if verdicts[-1].accepted else verdicts[-1].reason

    def elsewhere(self, trial: LoopTrial, reason: str, live_map: LiveMap) -> list[LoopTrial]:
        """Where else the same two places may be met, after a trial that did not fit: one of its
        ends moved along the drive, pairs that look most alike first."""
        if not reason.startswith(MISPLACED):
            return []
        found = trial.candidate
        moves = [step * sign for step in ANCHOR_STEPS for sign in (-1, 1)]
        pairs = [(found.frame_id, found.match_id + move) for move in moves]
        pairs += [(found.frame_id + move, found.match_id) for move in moves]
        known = self.detector.similarities(pairs)
        best = sorted(known, key=lambda c: -c.similarity)[: self._config.anchor_search]
        trials = [self._trial(candidate, live_map) for candidate in best]
        return [other for other in trials if other is not None]

    def _put(self, prediction: ChunkPrediction, frames: Mapping[int, Frame]) -> None:
        with explained(self.records.folder):
            self.records.put(prediction, frames)

    def _judge(
        self, trial: LoopTrial, prediction: ChunkPrediction, live_map: LiveMap
    ) -> list[LoopVerdict]:
        """Align the loop chunk with both ends and test what it implies."""
        alignments, sides = [], []
        for end, window in zip(trial.ends, trial.windows):
            seen = [i for i in window if i in prediction.frame_ids]
            recorded = self.records.prediction(end, seen)
            sides.append(reduce_prediction(prediction, seen))
            alignments.append(align(recorded, sides[-1], self._alignment))
        a, b = trial.ends
        if all(found.accepted for found in alignments):
            overlap = joint_overlap(*sides)
            if overlap < self._config.min_overlap:
                return [refused_loop(trial.ends, f"no_overlap ({overlap:.2f})")]
        S_map = live_map.graph.nodes
        S_map_a, S_map_b = S_map[a], S_map[b]
        parts, known = live_map.graph.components(), None
        if parts[a] == parts[b]:
            known = live_map.graph.relative_covariance(a, b)
        else:
            # Where an unconnected part lies is arbitrary, so nothing there can contradict the loop;
            # only the images can.
            proof = self._proof
            if refusal := place_agreement(prediction, *trial.windows).refusal(
                proof.min_likeness, proof.min_depth_agreement
            ):
                raise AnotherPlace(refusal)
            S_a_b = alignments[0].S_previous_current @ alignments[1].S_previous_current.inverse()
            S_map_b = S_map_a @ S_a_b
        depth = self.records.prediction(a, trial.windows[0]).depth
        distance = float(np.nanmedian(depth)) * float(S_map_a.scale)
        path = live_map.path_length(trial.candidate.match_id, trial.candidate.frame_id)
        to_ends = alignments[0], alignments[1]
        self._verifier.follow(S_map)
        return self._verifier.verify(trial.ends, to_ends, (S_map_a, S_map_b), path, distance, known)

    def _trial(self, candidate: LoopCandidate, live_map: LiveMap) -> LoopTrial | None:
        earlier, later = candidate.match_id, candidate.frame_id
        if not (earlier in live_map.trajectory and later in live_map.trajectory):
            return None
        ends = live_map.trajectory.chunk_of(earlier), live_map.trajectory.chunk_of(later)
        if ends[0] == ends[1] or not all(end in self.records for end in ends):
            return None
        windows = self._window(earlier, ends[0]), self._window(later, ends[1])
        return None if set(windows[0]) & set(windows[1]) else LoopTrial(candidate, ends, windows)

    def _window(self, frame_id: int, chunk_index: int) -> tuple[int, ...]:
        return loop_window(frame_id, self.records.frame_ids(chunk_index), self._config.window)


def _mirror(source: Path, target: Path) -> None:
    """Make `target` hold the same records as `source`; files are never changed once written."""
    with explained(target):
        target.mkdir(parents=True, exist_ok=True)
        wanted = {path.name: path for path in source.glob("*.npz") if path.is_file()}
        for path in target.glob("*.npz"):
            if path.name not in wanted:
                path.unlink()
        for name, path in wanted.items():
            copy = target / name
            if not copy.exists() or copy.stat().st_mtime_ns != path.stat().st_mtime_ns:
                link_or_copy(path, copy)
        for folder in (target, target.parent, target.parent.parent):  # names are on the disk too
            sync_folder(folder)
