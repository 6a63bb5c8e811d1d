"""Revisited places: candidates from frame descriptors, and the geometric test that decides.

Appearance only proposes. A loop is accepted when the loop chunk aligns with both places and the
correction that it implies is plausible for the distance travelled, or when a second loop implies
the same correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from scal3r_ros.config import LoopConfig
from scal3r_ros.mapping.alignment import Alignment
from scal3r_ros.mapping.descriptor_store import DESCRIPTOR_WIDTH, DescriptorStore
from scal3r_ros.mapping.sim3 import Sim3

LEAST_LEARNED = 3
"""Accepted loops after which the spread of their corrections counts."""
MARGIN = 2.0
"""Correction always allowed, in scene distances: short paths have little drift to correct."""
MAX_CORRECTED_TURN = np.radians(60.0)
"""Largest rotation that a loop may correct."""
AGREEMENT = (0.1, np.radians(5.0), 0.1)
"""Two loops agree within: translation (share of the correction), rotation (rad), log-scale."""


@dataclass(frozen=True)
class LoopCandidate:
    """Two frames that look alike."""

    frame_id: int
    match_id: int
    """The earlier one."""
    similarity: float


@dataclass(frozen=True)
class LoopVerdict:
    """Outcome of the geometric test of one loop chunk."""

    accepted: bool
    reason: str
    """`consistent`, `confirmed` by a second loop, or why not: `alignment_failed`, `no_overlap`,
    `scale_change`, `rotation`, `drift`, `improbable`, `ambiguous`."""
    a: int
    """Chunk index of the earlier place."""
    b: int
    S_a_b: Sim3
    sigma: np.ndarray
    """(3,) standard deviations of translation (chunk b's units), rotation, log-scale."""


class LoopDetector:
    """Causal search: each new frame against all frames at least `min_gap` older."""

    def __init__(self, config: LoopConfig) -> None:
        self.config = config
        self._store = DescriptorStore()
        self._tried: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """Number of descriptors kept."""
        return len(self._store)

    def add(self, frame_ids: Sequence[int], descriptors: np.ndarray) -> list[LoopCandidate]:
        """Search for new frames (N) with unit descriptors (N, D), then remember them.

        At most `max_candidates`, best first; pairs near one already returned are suppressed.
        """
        ids = np.asarray(frame_ids, dtype=np.int64)
        compact = compacted(np.asarray(descriptors, dtype=np.float32))
        found = self._search(ids, compact) if self.config.enabled and len(self) else []
        self._store.add(ids, compact)
        chosen: list[LoopCandidate] = []
        for candidate in sorted(found, key=lambda c: (-c.similarity, c.frame_id)):
            if len(chosen) >= self.config.max_candidates:
                break
            if not self._suppressed(candidate):
                self._tried.append((candidate.frame_id, candidate.match_id))
                chosen.append(candidate)
        return chosen

    def alike(self, frame_ids: Sequence[int], descriptors: np.ndarray) -> list[LoopCandidate]:
        """The best match of each of these frames (N) among all that are kept, which they do not
        join."""
        if not len(self) or not len(frame_ids):
            return []
        vectors = compacted(np.asarray(descriptors, dtype=np.float32))
        anywhere = np.full(len(vectors), np.iinfo(np.int64).max)
        best, match = self._store.nearest(vectors, anywhere)
        found = zip(frame_ids, match[:, 0].tolist(), best[:, 0].tolist())
        return [LoopCandidate(int(i), m, value) for i, m, value in found if m >= 0]

    def of(self, frame_ids: Sequence[int]) -> tuple[list[int], np.ndarray]:
        """Those of the frames whose descriptors are kept, and these (n, D)."""
        kept = self._store.state()
        row = {frame_id: i for i, frame_id in enumerate(kept["ids"].tolist())}
        known = [i for i in frame_ids if i in row]
        return known, kept["descriptors"][[row[i] for i in known]].astype(np.float32)

    def similarities(self, pairs: Sequence[tuple[int, int]]) -> list[LoopCandidate]:
        """Candidates of given pairs (frame, earlier frame) that are known and far enough apart."""
        wanted = sorted({frame_id for pair in pairs for frame_id in pair})
        vectors = self._store.centred(wanted)
        return [
            LoopCandidate(frame_id, match_id, float(vectors[frame_id] @ vectors[match_id]))
            for frame_id, match_id in pairs
            if frame_id in vectors
            and match_id in vectors
            and frame_id - match_id >= self.config.min_gap
        ]

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays, to save and restore."""
        return {
            **self._store.state(),
            "tried": np.array(self._tried, np.int64).reshape(-1, 2),
        }

    @classmethod
    def restore(cls, config: LoopConfig, arrays) -> LoopDetector:
        detector = cls(config)
        detector._store.restore(arrays["ids"], arrays["descriptors"])
        detector._tried = [tuple(pair) for pair in np.asarray(arrays["tried"]).tolist()]
        return detector

    def _search(self, ids: np.ndarray, descriptors: np.ndarray) -> list[LoopCandidate]:
        """Best earlier places of each frame by cosine after subtracting the mean of all frames.

        What all frames of a session share, such as the light, would make all places look alike.
        """
        best, match = self._store.nearest(
            descriptors, ids - self.config.min_gap, self.config.answers, self.config.nms_window
        )
        return [
            LoopCandidate(int(ids[i]), int(match[i, k]), float(best[i, k]))
            for i, k in np.argwhere(best > self.config.threshold).tolist()
        ]

    def _suppressed(self, candidate: LoopCandidate) -> bool:
        window = self.config.nms_window
        return any(
            abs(candidate.frame_id - frame_id) <= window
            and abs(candidate.match_id - match_id) <= window
            for frame_id, match_id in self._tried
        )


class LoopVerifier:
    """Geometric test; remembers implausibly large corrections until a second loop confirms
    them."""

    def __init__(self, config: LoopConfig) -> None:
        self.config = config
        self._waiting: list[tuple[LoopVerdict, Sim3]] = []
        """Each with the correction of the map, in map coordinates, that it implies."""
        self._corrections: list[float] = []
        """Of loops accepted lately, in standard deviations."""

    def state(self) -> dict[str, np.ndarray]:
        """The verdicts that wait for confirmation as arrays, to save and restore."""
        verdicts = [verdict for verdict, _ in self._waiting]
        transforms = [S for verdict, implied in self._waiting for S in (verdict.S_a_b, implied)]
        poses = Sim3.stack(transforms)
        return {
            "ends": np.array([(v.a, v.b) for v in verdicts], np.int64).reshape(-1, 2),
            "reason": np.array([v.reason for v in verdicts], dtype="U32"),
            "sigma": np.array([v.sigma for v in verdicts]).reshape(-1, 3),
            "corrections": np.array(self._corrections, np.float64),
            "scale": np.asarray(poses.scale),
            "rotation": poses.rotation,
            "translation": poses.translation,
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Wait for confirmation of what a saved verifier waited for."""
        poses = Sim3(arrays["scale"], arrays["rotation"], arrays["translation"])
        self._corrections = np.asarray(arrays.get("corrections", ())).tolist()  # not in older maps
        reasons, sigmas = arrays["reason"].tolist(), np.array(arrays["sigma"])
        self._waiting = []
        for i, (a, b) in enumerate(arrays["ends"].tolist()):
            verdict = LoopVerdict(False, reasons[i], a, b, poses[2 * i], sigmas[i])
            self._waiting.append((verdict, poses[2 * i + 1]))

    def follow(self, S_map_chunk: Mapping[int, Sim3]) -> None:
        """What the loops that wait would correct of the map as it is now: it may have been rescaled
        or corrected since they were seen."""
        self._waiting = [
            (v, S_map_chunk[v.a] @ v.S_a_b @ S_map_chunk[v.b].inverse()) for v, _ in self._waiting
        ]

    def verify(
        self,
        ends: tuple[int, int],
        alignments: tuple[Alignment, Alignment],
        S_map_ends: tuple[Sim3, Sim3],
        path_length: float,
        scene_distance: float,
        known: np.ndarray | None = None,
    ) -> list[LoopVerdict]:
        """Judge the loop chunk q between chunks `ends` = (a, b), a the earlier.

        alignments: S_a_q and S_b_q. S_map_ends: where the graph has a and b now. path_length (map
        units) travelled between the two places; scene_distance the typical depth in map units.
        known: (7, 7) covariance of b's place relative to a, right perturbations, by the edges of
        this run; None where a and b are not connected.
        Returns the verdict, preceded by an older one that it confirms.
        """
        verdict = self._measure(ends, alignments)
        if not verdict.accepted:
            return [verdict]
        S_map_a, S_map_b = S_map_ends
        correction = (S_map_a @ verdict.S_a_b) @ S_map_b.inverse()
        change = (verdict.S_a_b.inverse() @ S_map_a.inverse() @ S_map_b).log()
        allowed = self.config.max_drift * path_length + MARGIN * scene_distance
        moved = float(np.linalg.norm(change[:3]) * S_map_b.scale)
        reason = "consistent"
        if abs(change[6]) > np.log(self.config.max_scale_change):
            reason = "scale_change"
        elif np.linalg.norm(change[3:6]) > MAX_CORRECTED_TURN:
            reason = "rotation"
        elif moved > allowed:
            reason = "drift"
        elif known is not None:
            unlikely = _unlikeliness(change, known, verdict.sigma)
            place_sigma = float(np.sqrt(np.linalg.eigvalsh(known[:3, :3])[-1]) * S_map_b.scale)
            if unlikely > self.config.max_sigmas * self._usual():
                reason = "improbable"
            elif 3.0 * place_sigma > MARGIN * scene_distance:
                reason = "ambiguous"  # other places lie as near as this one
            else:
                self._learn(unlikely)
        if reason == "consistent":
            return [verdict]
        return self._confirm(verdict, correction, S_map_b.translation, reason)

    def _usual(self) -> float:
        """How many standard deviations the corrections of this run are, at least one: its drift may
        be systematic, which no single edge tells."""
        return max(1.0, float(np.median(self._corrections))) if self._learned else 1.0

    @property
    def _learned(self) -> bool:
        return len(self._corrections) >= LEAST_LEARNED

    def _learn(self, unlikely: float) -> None:
        self._corrections = [*self._corrections[-63:], unlikely]

    def _measure(
        self, ends: tuple[int, int], alignments: tuple[Alignment, Alignment]
    ) -> LoopVerdict:
        to_a, to_b = alignments
        good = to_a.accepted and to_b.accepted
        if not good:
            return refused_loop(ends, "alignment_failed")
        S_a_b = to_a.S_previous_current @ to_b.S_previous_current.inverse()
        to_b_units = np.array([to_b.S_previous_current.scale, 1.0, 1.0])
        sigma = np.sqrt((to_a.sigma * to_b_units) ** 2 + (to_b.sigma * to_b_units) ** 2)
        return LoopVerdict(True, "consistent", *ends, S_a_b, sigma)

    def _confirm(
        self, verdict: LoopVerdict, correction: Sim3, place: np.ndarray, reason: str
    ) -> list[LoopVerdict]:
        for i, (older, implied) in enumerate(self._waiting):
            if (older.a, older.b) != (verdict.a, verdict.b) and _agree(implied, correction, place):
                del self._waiting[i]
                return [_renamed(older, True, "confirmed"), _renamed(verdict, True, "confirmed")]
        self._waiting = [*self._waiting[-31:], (verdict, correction)]
        return [_renamed(verdict, False, reason)]


def refused_loop(ends: tuple[int, int], reason: str) -> LoopVerdict:
    """Of a loop chunk that does not say where its ends lie."""
    return LoopVerdict(False, reason, *ends, Sim3.identity(), np.full(3, np.inf))


def _unlikeliness(change: np.ndarray, known: np.ndarray, sigma: np.ndarray) -> float:
    """How many standard deviations, as the mean of its seven components, a correction (7,) is."""
    covariance = known + np.diag(np.repeat(sigma**2, (3, 3, 1)))
    return float(np.sqrt(change @ np.linalg.solve(covariance, change) / len(change)))


def loop_window(frame_id: int, chunk_ids: Sequence[int], length: int) -> tuple[int, ...]:
    """`length` consecutive frames of a chunk around one of them, shifted to stay inside the
    chunk."""
    ids = sorted(chunk_ids)
    position = ids.index(frame_id)
    start = max(0, min(position - length // 2, len(ids) - length))
    return tuple(ids[start : start + length])


def _agree(first: Sim3, second: Sim3, place: np.ndarray) -> bool:
    """Whether two corrections of the map move a place the same way."""
    difference = (first.inverse() @ second).log()
    moved = [S.apply(place[None])[0] - place for S in (first, second)]
    apart = np.linalg.norm(moved[0] - moved[1])
    size = max(np.linalg.norm(moved[0]), np.linalg.norm(moved[1]))
    translation, rotation, log_scale = AGREEMENT
    turned = np.linalg.norm(difference[3:6])
    return apart <= translation * size and turned <= rotation and abs(difference[6]) <= log_scale


def _renamed(verdict: LoopVerdict, accepted: bool, reason: str) -> LoopVerdict:
    return LoopVerdict(accepted, reason, verdict.a, verdict.b, verdict.S_a_b, verdict.sigma)


def compacted(descriptors: np.ndarray) -> np.ndarray:
    """Project to DESCRIPTOR_WIDTH numbers (fixed random directions), of unit length."""
    if descriptors.shape[1] > DESCRIPTOR_WIDTH:
        descriptors = descriptors @ _directions(descriptors.shape[1])
    lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
    return descriptors / np.maximum(lengths, 1e-12)


@lru_cache(maxsize=2)
def _directions(length: int) -> np.ndarray:
    """(length, DESCRIPTOR_WIDTH) fixed random directions: slow to draw, so drawn once."""
    random = np.random.default_rng(length)
    directions = random.standard_normal((length, DESCRIPTOR_WIDTH)).astype(np.float32)
    directions.flags.writeable = False
    return directions
