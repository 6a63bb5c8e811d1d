"""Several saved maps of one world become one, by places that they share.

Frames that look alike are reconstructed together and judged as fixes are in localisation. One such
loop may be wrong; a map is joined by the largest group of loops that imply the same place for it.
The maps that were given are only read, and nothing is written unless all could be joined.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.files import write_text
from scal3r_ros.mapping.loop_closure import LoopCandidate, compacted
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.pipeline import joining, save
from scal3r_ros.pipeline.map_search import Fix, MapSearch
from scal3r_ros.pipeline.mapping_state import MappingState
from scal3r_ros.pipeline.progress import Progress
from scal3r_ros.pipeline.renumber import append
from scal3r_ros.reconstruct.interface import ReconstructionFailed, Reconstructor
from scal3r_ros.records import Chunk, ChunkPrediction
from scal3r_ros.scratch import ScratchFolder

REPORT = "merge_report.json"
SAME = (0.15, np.radians(12.0), np.log(1.25))
"""Two loops imply the same place for a map within: translation (share of the map's extent), turn,
log-scale; the map itself may have bent as much."""
METRIC = 1.1
"""Two maps in metres may differ by this factor before one of them must be wrong."""
DRIFT = 1.15
"""Loops of one pair of maps may differ by this factor in scale before one of the maps must have
shrunk or grown on its way."""
_SAME_DESCRIPTOR = 0.98


@dataclass(frozen=True)
class MergeOptions:
    """How hard to look."""

    tries: int = 12
    """Pairs of places that are tried for each map."""
    least_loops: int = 2
    """Loops that must imply the same place before a map is joined."""


@dataclass
class JoinedMap:
    """How one map was joined, for the report."""

    folder: str
    frames: int
    chunks: int
    waiting: int = 0
    """Frames that had not been mapped yet, which are left out."""
    loops: list[dict] = field(default_factory=list)
    """Every pair of places that was tried: frames, similarity, scale, and why it was refused."""
    scale: float | None = None
    """Units of the joined map per unit of this one."""
    alarms: list[str] = field(default_factory=list)


class NotJoined(ValueError):
    """Some maps share no proven place with the others; the message says which."""


@dataclass(frozen=True)
class _Proof:
    """A loop that stands up to the pixels."""

    fix: Fix
    a: int
    b: int
    S_a_b: Sim3
    S_first_second: Sim3
    """What it implies for the second map as a whole."""


def merge(
    config: Config,
    reconstructor: Reconstructor,
    folders: Sequence[Path],
    out: Path,
    options: MergeOptions | None = None,
    progress: Progress | None = None,
) -> list[JoinedMap]:
    """Join saved maps into the frame of the first and write them to `out` with a report. The
    reconstructor is left with the first map's memory. Raises `NotJoined`, `BadMapFile`,
    `SaveFailed`, `Cancelled`."""
    options, progress = options or MergeOptions(), progress or Progress()
    if len(folders) < 2:
        raise ValueError(f"merging needs two maps or more, found {len(folders)}")
    save.check_target(out, overwrite=False)
    scratch = ScratchFolder("scal3r_merge_")
    try:
        done, first = _all_joined(config, reconstructor, folders, scratch.path, options, progress)
        progress.at("writing", 1.0)
        out.parent.mkdir(parents=True, exist_ok=True)
        save.write_state(first, reconstructor, out, save.new_files())
    finally:
        scratch.remove()
    text = json.dumps([asdict(entry) for entry in done], indent=1)
    write_text(out / REPORT, text + "\n")
    return done


def _all_joined(
    config: Config,
    reconstructor: Reconstructor,
    folders: Sequence[Path],
    scratch: Path,
    options: MergeOptions,
    progress: Progress,
) -> tuple[list[JoinedMap], MappingState]:
    """Join one map after the other; what finds no place is tried again with all that were joined
    meanwhile."""
    progress.at("reading the first map")
    first = save.read_state(config, reconstructor, folders[0], scratch / "0").state
    joining.close(first.live_map)
    done, left = [_about(folders[0], first)], list(folders[1:])
    while left:
        refused: list[JoinedMap] = []
        for folder in left:
            progress.at(f"joining {folder}", len(done) / len(folders))
            records = scratch / save.new_files()
            second = save.read_map_alone(config, folder, records).state
            joining.close(second.live_map)
            entry = _about(folder, second)
            joined = _join(config, reconstructor, first, second, entry, options, progress)
            (done if joined else refused).append(entry)
        if len(refused) == len(left):
            raise NotJoined(_refusal(config, refused, options))
        left = [Path(entry.folder) for entry in refused]
    return done, first


def _join(
    config: Config,
    reconstructor: Reconstructor,
    first: MappingState,
    second: MappingState,
    entry: JoinedMap,
    options: MergeOptions,
    progress: Progress,
) -> bool:
    """Tie the second map to the first if enough loops agree; the first is unchanged otherwise."""
    proofs = []
    for candidate, chunk, seen in _candidates(config, reconstructor, first, second, options):
        progress.at(progress.stage, progress.share)
        proof = _tried(config, reconstructor, first, second, candidate, chunk, seen, entry)
        proofs += [] if proof is None else [proof]
    agreeing = _largest_group(proofs, _extent(second))
    if len(agreeing) < options.least_loops:
        return False
    _raise_alarms(first, second, agreeing, proofs, entry)
    offsets = append(first, second)
    for proof in agreeing:
        assert proof.fix.sigma is not None
        ends = proof.a, proof.b + offsets.chunk
        first.live_map.graph.add_edge(*ends, proof.S_a_b, "loop", proof.fix.sigma)
    first.live_map.correct()
    return True


def _candidates(
    config: Config,
    reconstructor: Reconstructor,
    first: MappingState,
    second: MappingState,
    options: MergeOptions,
) -> list[tuple[LoopCandidate, Chunk, ChunkPrediction]]:
    """Pairs of places that look most alike, far from each other in the second map; with the
    stored images and geometry of the second one's."""
    search = MapSearch(config, reconstructor, first)
    found: list[tuple[LoopCandidate, Chunk, ChunkPrediction]] = []
    anew: bool | None = None
    owners = second.live_map.trajectory.chunks
    for index in sorted(owners.intersection(second.loops.records.chunks)):
        chunk, stored = _stored(second, index, first)
        if anew is None or anew:
            described = _described(reconstructor, chunk, stored)
            anew = _otherwise(stored, described)
            stored = described if anew else stored
        alike = search.alike(stored)
        found += [(candidate, chunk, stored) for candidate in alike[:1]]
    found.sort(key=lambda item: -item[0].similarity)
    return found[: options.tries]


def _stored(second: MappingState, index: int, first: MappingState) -> tuple[Chunk, ChunkPrediction]:
    """Images, reduced geometry and descriptors of the recorded frames that a chunk owns, numbered
    as behind the first map's."""
    records, known = second.loops.records, second.live_map.trajectory
    own = [i for i in records.frame_ids(index) if i in known and known.chunk_of(i) == index]
    ids, descriptors = second.loops.detector.of(own)
    shift, size = first.next_frame_id, first.chunks.chunker.first_size
    frames = tuple(replace(f, id=f.id + shift) for f in records.frames(index, ids))
    numbers = tuple(frame.id for frame in frames)
    stored = replace(records.prediction(index, ids), frame_ids=numbers, descriptors=descriptors)
    return Chunk(index, 0, frames, first_size=size), stored


def _described(
    reconstructor: Reconstructor, chunk: Chunk, stored: ChunkPrediction
) -> ChunkPrediction:
    """The stored geometry with descriptors as the reconstructor gives them with the memory that it
    has now: some describe by what they have seen first."""
    try:
        now = reconstructor.reconstruct(chunk, contribute=False)
    except ReconstructionFailed:
        return replace(stored, descriptors=None)
    if now.descriptors is None:
        return replace(stored, descriptors=None)
    both = [i for i in stored.frame_ids if i in now.frame_ids]
    rows = [now.frame_ids.index(i) for i in both]
    return replace(stored.of_frames(both), descriptors=now.descriptors[rows])


def _otherwise(stored: ChunkPrediction, now: ChunkPrediction) -> bool:
    """Whether frames are described otherwise than when they were stored."""
    if now.descriptors is None or stored.descriptors is None:
        return False
    kept, known = stored.of_frames(now.frame_ids).descriptors, compacted(now.descriptors)
    assert kept is not None
    return kept.shape != known.shape or float((kept * known).sum(axis=1).min()) < _SAME_DESCRIPTOR


def _tried(
    config: Config,
    reconstructor: Reconstructor,
    first: MappingState,
    second: MappingState,
    candidate: LoopCandidate,
    chunk: Chunk,
    stored: ChunkPrediction,
    entry: JoinedMap,
) -> _Proof | None:
    """Judge one pair of places, and note the outcome for the report."""
    fix = MapSearch(config, reconstructor, first).test(candidate, chunk, stored)
    row = {
        "frame": candidate.frame_id - first.next_frame_id,
        "of_the_joined_map": candidate.match_id,
        "similarity": round(candidate.similarity, 3),
        "likeness": round(fix.agreement.likeness, 3),
        "refused": fix.refused,
    }
    entry.loops.append(row)
    if fix.refused:
        return None
    a = first.live_map.trajectory.chunk_of(candidate.match_id)
    S_map_a, S_second_b = first.live_map.graph.nodes[a], second.live_map.graph.nodes[chunk.index]
    S_a_b = S_map_a.inverse() @ fix.S_map_chunk
    implied = fix.S_map_chunk @ S_second_b.inverse()
    row["scale"] = round(float(implied.scale), 4)
    return _Proof(fix, a, chunk.index, S_a_b, implied)


def _largest_group(proofs: Sequence[_Proof], extent: tuple[np.ndarray, float]) -> list[_Proof]:
    """The most loops that imply the same place as one of them."""
    groups = [
        [other for other in proofs if _agree(one.S_first_second, other.S_first_second, *extent)]
        for one in proofs
    ]
    return max(groups, key=len, default=[])


def _agree(one: Sim3, other: Sim3, centre: np.ndarray, extent: float) -> bool:
    moved = [S.apply(centre[None])[0] for S in (one, other)]
    apart = np.linalg.norm(moved[0] - moved[1]) / (extent * float(one.scale))
    difference = (one.inverse() @ other).log()
    turned, scaled = np.linalg.norm(difference[3:6]), abs(difference[6])
    return bool(apart <= SAME[0] and turned <= SAME[1] and scaled <= SAME[2])


def _raise_alarms(
    first: MappingState,
    second: MappingState,
    agreeing: Sequence[_Proof],
    proofs: Sequence[_Proof],
    entry: JoinedMap,
) -> None:
    """What the loops say about the second map's scale."""
    scales = np.array([float(proof.S_first_second.scale) for proof in agreeing])
    entry.scale = float(np.exp(np.log(scales).mean()))
    spread = float(scales.max() / scales.min())
    if spread > DRIFT:
        entry.alarms.append(
            f"the scale changes by a factor of {spread:.2f} from loop to loop: it drifts within "
            f"one of the maps"
        )
    others = [p for p in proofs if p not in agreeing]
    if others:
        entry.alarms.append(
            f"{len(others)} loops contradict the {len(agreeing)} that were taken; they are refused"
        )
    metric = first.live_map.scale.frozen and second.live_map.scale.frozen
    if metric and not 1 / METRIC < entry.scale < METRIC:
        entry.alarms.append(
            f"both maps are in metres, but a metre of this one is {entry.scale:.2f} of the other: "
            f"one of them is wrong"
        )


def _extent(state: MappingState) -> tuple[np.ndarray, float]:
    """Middle and size of a map's path, its own units."""
    positions = state.live_map.trajectory.matrices(state.live_map.graph.nodes)[:, :3, 3]
    return positions.mean(axis=0), max(float(np.linalg.norm(np.ptp(positions, axis=0))), 1e-9)


def _about(folder: Path, state: MappingState) -> JoinedMap:
    live_map = state.live_map
    waiting = len(state.chunks.untried)
    return JoinedMap(str(folder), len(live_map.trajectory), len(live_map.graph.nodes), waiting)


def _refusal(config: Config, refused: Sequence[JoinedMap], options: MergeOptions) -> str:
    """Which maps could not be joined, and an example why."""
    names, last = ", ".join(entry.folder for entry in refused), refused[-1]
    reasons = [row["refused"] for row in last.loops if row["refused"]]
    if not last.loops:
        least = config.localisation.threshold
        why = f"no view of the last looks like one of the others (threshold {least:g})"
    elif reasons:
        why = f"of {len(last.loops)} places tried in the last, one was refused: {reasons[0]}"
    else:
        why = f"{len(last.loops)} places of the last match, but contradict each other"
    return (
        f"{names} could not be joined: fewer than {options.least_loops} agreeing places; {why}. "
        f"Nothing was written; map a stretch that both maps have seen"
    )
