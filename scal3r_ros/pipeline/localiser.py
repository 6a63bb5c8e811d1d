"""Where the camera is in a map that stays as it is: chunk by chunk, lost or not.

Chunks are tied to each other as in mapping (shared frames, else odometry) and to the map by fixes
(`MapSearch`). A lost camera is found when two fixes agree, or one agrees with what somebody said; a
fix is then a measurement that corrects the place predicted by odometry. The camera is lost when the
chain of chunks breaks, when nothing has tied it to the map for too long, or when two fixes
contradict where it was thought to be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.mapping.alignment import Alignment, align
from scal3r_ros.mapping.graph_covariance import placed_after
from scal3r_ros.mapping.loop_closure import LoopCandidate
from scal3r_ros.mapping.loop_records import reduce_prediction
from scal3r_ros.mapping.odometry_bridge import bridge_by_odometry
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.pipeline.map_search import Fix, MapSearch, scene_distance
from scal3r_ros.pipeline.mapping_state import MappingState
from scal3r_ros.pipeline.scale_and_level import ScaleAndLevel
from scal3r_ros.reconstruct.interface import Reconstructor
from scal3r_ros.records import Chunk, ChunkPrediction, Event

LOST, FOUND = "lost", "localised"
SAME_PLACE = np.array([0.15, np.radians(8.0), 0.15])
"""Two places of a chunk are the same within: translation (scene distances), rotation, log-scale;
beyond that, within `SIGMAS` standard deviations."""
SIGMAS = 3.0
MEASURED = np.array([0.02, np.radians(0.7), 0.02])
"""Least standard deviation of a fix: images of another day, reduced depth. Translation in scene
distances, rotation, log-scale."""
_CHAIN = 6
"""Chunks that get their place afterwards, when the camera is found."""


@dataclass(frozen=True)
class PlacedChunk:
    """A chunk of the present chain."""

    chunk: Chunk
    prediction: ChunkPrediction
    S_chain_chunk: Sim3
    """In the map while localised, else in a frame of the chain's own."""
    covariance: np.ndarray
    """(7, 7) of S_chain_chunk for right perturbations."""


@dataclass(frozen=True)
class Guess:
    """What somebody said about the camera's pose."""

    T_map_camera: np.ndarray
    covariance: np.ndarray
    """(6, 6) along the axes of the map: x y z, rotation vector."""


@dataclass(frozen=True)
class Step:
    """What one chunk has told."""

    placed: tuple[PlacedChunk, ...] = ()
    """Chunks whose place in the map is now known: the newest, and at finding those before it."""
    events: tuple[Event, ...] = ()


class Localiser:
    """Takes chunks of one stream in order; the map is only read."""

    def __init__(
        self,
        config: Config,
        reconstructor: Reconstructor,
        state: MappingState,
        outside: ScaleAndLevel,
    ) -> None:
        """`outside` holds odometry that bridges chunks whose own geometry cannot be joined."""
        self._config, self._outside = config, outside
        self.search = MapSearch(config, reconstructor, state)
        self.state, self.unchecked = LOST, 0
        self.tried: tuple[Fix, ...] = ()
        """What the newest chunk was compared with."""
        self._chain: deque[PlacedChunk] = deque(maxlen=_CHAIN)
        self._single: tuple[Sim3, Fix] | None = None
        """A fix that waits for a second one, as S_map_chain and itself."""
        self._guess: Guess | None = None

    def guess(self, guess: Guess) -> None:
        """Look near this pose with the next chunk; a hint that is checked, not believed."""
        self._guess = guess

    def lose(self, reason: str, summary_index: int) -> list[Event]:
        """The chain has ended; what follows lies anywhere."""
        self._chain.clear()
        self._single = None
        return self._lost(reason, summary_index)

    def take(self, chunk: Chunk, prediction: ChunkPrediction) -> Step:
        """The next chunk; its poses count as free, whatever the network's memory says."""
        prediction = replace(prediction, gauge="free")
        events = self._extend(chunk, prediction)
        fixes = self._fixes(chunk, prediction)
        self.tried = tuple(fixes)
        good = [fix for fix in fixes if not fix.refused]
        if self.state == FOUND:
            events += self._correct(good)
        if self.state == LOST:
            events += self._find(good)
        self._guess = None
        if self.state == LOST:
            return Step((), tuple(events))
        placed = tuple(self._chain) if any(e.name == "localised" for e in events) else ()
        return Step(placed or (self._chain[-1],), tuple(events))

    @property
    def newest(self) -> PlacedChunk | None:
        """The last chunk of the present chain."""
        return self._chain[-1] if self._chain else None

    def _extend(self, chunk: Chunk, prediction: ChunkPrediction) -> list[Event]:
        """Tie the chunk to the one before; a broken chain loses the camera."""
        before = self.newest
        joined = None if before is None else self._joined(before, chunk, prediction)
        if before is not None and joined is not None and joined.accepted:
            S = before.S_chain_chunk @ joined.S_previous_current
            known = placed_after(before.covariance, before.S_chain_chunk, S, joined.sigma)
            self._chain.append(PlacedChunk(chunk, prediction, S, known))
            return []
        events: list[Event] = []
        if before is not None:
            why = "no shared frames" if joined is None else joined.failure
            events = self.lose(f"the newest images do not follow those before: {why}", chunk.index)
        unit = Sim3.identity()
        self._chain.append(PlacedChunk(chunk, prediction, unit, np.zeros((7, 7))))
        return events

    def _joined(
        self, before: PlacedChunk, chunk: Chunk, prediction: ChunkPrediction
    ) -> Alignment | None:
        if not set(before.prediction.frame_ids) & set(chunk.overlap_ids):
            return None
        alignment = align(before.prediction, prediction, self._config.alignment)
        if alignment.accepted:
            return alignment
        known = self._outside.odometry(before.chunk.summary)
        known |= self._outside.odometry(chunk.summary)
        bridge = bridge_by_odometry(before.prediction, prediction, known)
        return bridge if bridge.accepted else alignment

    def _fixes(self, chunk: Chunk, prediction: ChunkPrediction) -> list[Fix]:
        """Compare with as many places of the map as the state allows, the likeliest first."""
        candidates: list[LoopCandidate] = []
        if self._guess is not None:
            candidates += self.search.near(prediction, self._guessed(prediction), wide=2.0)
        if self.state == FOUND:
            candidates += self.search.near(prediction, self._chain[-1].S_chain_chunk)
            candidates += [] if candidates else self.search.alike(prediction)
            allowed = 1 + (self._guess is not None)
        else:
            candidates += self.search.alike(prediction)
            allowed = self._config.localisation.candidates
        fixes: list[Fix] = []
        for candidate in candidates[:allowed]:
            fixes.append(self.search.test(candidate, chunk, reduce_prediction(prediction)))
            if self.state == LOST and self._agreeing(fixes):
                break
        return fixes

    def _guessed(self, prediction: ChunkPrediction) -> Sim3:
        """Where the chunk lies if its newest camera is where the guess says, at the map's scale."""
        assert self._guess is not None
        unit = self.search.typical_scale()
        S = Sim3.from_pose(self._guess.T_map_camera) @ Sim3(np.array(unit), np.eye(3), np.zeros(3))
        return S @ Sim3.from_pose(prediction.T_chunk_camera[-1]).inverse()

    def _agreeing(self, fixes: Sequence[Fix]) -> Fix | None:
        """The last good fix, if a second one, or the guess, says the same."""
        last = fixes[-1] if fixes else None
        if last is None or last.refused:
            return None
        newest = self._chain[-1]
        others = [fix.S_map_chunk for fix in fixes[:-1] if not fix.refused]
        if self._single is not None:
            others.append(self._single[0] @ newest.S_chain_chunk)
        known = newest.covariance
        if any(self._same(other, last.S_map_chunk, newest.prediction, known) for other in others):
            return last
        return last if self._guess is not None and self._as_guessed(last) else None

    def _as_guessed(self, fix: Fix) -> bool:
        """Whether a fix puts the newest camera where the guess does, within its uncertainty."""
        assert self._guess is not None
        newest = self._chain[-1].prediction
        T = fix.S_map_chunk.move_pose(newest.T_chunk_camera[-1])
        apart = Sim3.from_pose(self._guess.T_map_camera).inverse() @ Sim3.from_pose(T)
        moved = T[:3, 3] - self._guess.T_map_camera[:3, 3]
        turned = np.linalg.norm(apart.log()[3:6])
        sigma = np.sqrt(np.diagonal(self._guess.covariance))
        near = np.linalg.norm(moved) <= SIGMAS * max(sigma[:3].max(), 1e-6)
        return bool(near and turned <= SIGMAS * max(sigma[3:].max(), 1e-6))

    def _find(self, good: Sequence[Fix]) -> list[Event]:
        """Lost: believe a fix that something else confirms; remember one that stands alone."""
        newest = self._chain[-1]
        for count in range(1, len(good) + 1):
            fix = self._agreeing(good[:count])
            if fix is not None:
                self._place(fix)
                text = f"in the map, by {fix.name} (likeness {fix.agreement.likeness:.2f})"
                return [Event("localised", text, newest.chunk.index)]
        if good:
            S_map_chain = good[0].S_map_chunk @ newest.S_chain_chunk.inverse()
            self._single = (S_map_chain, good[0])
        return []

    def _place(self, fix: Fix) -> None:
        """Put the whole chain where a fix puts its newest chunk."""
        newest = self._chain[-1]
        S_map_chain = fix.S_map_chunk @ newest.S_chain_chunk.inverse()
        known = self._measured(fix)
        self._chain = deque(
            (
                replace(item, S_chain_chunk=S_map_chain @ item.S_chain_chunk, covariance=known)
                for item in self._chain
            ),
            maxlen=_CHAIN,
        )
        self.state, self.unchecked, self._single = FOUND, 0, None

    def _correct(self, good: Sequence[Fix]) -> list[Event]:
        """Localised: fuse a fix that agrees with the prediction; count what is not checked."""
        newest = self._chain[-1]
        for fix in good:
            expected = newest.covariance + self._measured(fix)
            if self._same(newest.S_chain_chunk, fix.S_map_chunk, newest.prediction, expected):
                self._chain[-1] = self._fused(newest, fix)
                self.unchecked, self._single = 0, None
                return []
        if good:
            return self._contradicted(good[0])
        self.unchecked += 1
        if self.unchecked < self._config.localisation.max_unchecked:
            return []
        last = self.tried[-1] if self.tried else None
        why = "no place of the map is near" if last is None else f"{last.name}: {last.refused}"
        return self._lost(
            f"{self.unchecked} chunks in a row could not be compared with the map; {why}",
            newest.chunk.index,
        )

    def _contradicted(self, fix: Fix) -> list[Event]:
        """A place that was proven contradicts the one that was predicted: nothing is certain."""
        newest = self._chain[-1]
        index = newest.chunk.index
        events = self._lost(f"{fix.name} is seen where it should not be", index)
        self._single = None
        return events

    def _fused(self, item: PlacedChunk, fix: Fix) -> PlacedChunk:
        """Kalman's update in the tangent space of the chunk's predicted place."""
        P, R = item.covariance, self._measured(fix)
        gain = P @ np.linalg.inv(P + R)
        innovation = (item.S_chain_chunk.inverse() @ fix.S_map_chunk).log()
        S = (item.S_chain_chunk @ Sim3.exp(gain @ innovation)).orthonormal()
        known = (np.eye(7) - gain) @ P
        return replace(item, S_chain_chunk=S, covariance=(known + known.T) / 2.0)

    def _measured(self, fix: Fix) -> np.ndarray:
        """(7, 7) covariance of a fix, in units of the chunk."""
        assert fix.sigma is not None
        prediction = self._chain[-1].prediction
        typical = float(np.nanmedian(prediction.depth))
        least = MEASURED * (typical, 1.0, 1.0)
        return np.diag(np.repeat(np.maximum(fix.sigma, least) ** 2, (3, 3, 1)))

    def _same(
        self, first: Sim3, second: Sim3, prediction: ChunkPrediction, covariance: np.ndarray
    ) -> bool:
        """Whether two places of one chunk are one, given how well their difference is known."""
        apart = (first.inverse() @ second).log()
        typical = scene_distance(prediction, Sim3.identity())
        found = [np.linalg.norm(apart[:3]), np.linalg.norm(apart[3:6]), abs(apart[6])]
        variance = np.diagonal(covariance)
        sigma = np.sqrt([variance[:3].max(), variance[3:6].max(), variance[6]])
        allowed = np.maximum(SAME_PLACE * (typical, 1.0, 1.0), SIGMAS * sigma)
        return bool((found <= allowed).all())

    def _lost(self, reason: str, chunk_index: int) -> list[Event]:
        if self.state == LOST:
            return []
        self.state, self.unchecked = LOST, 0
        return [Event("lost", reason, chunk_index)]
