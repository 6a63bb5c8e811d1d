"""A reconstructor that knows the world: cuts chunks from a `City` and spoils them on purpose.

Within a chunk, scale and heading drift along the frames, so that chaining many chunks drifts as a
real network does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scal3r_ros.bench.city import City
from scal3r_ros.mapping.chunking import middle_position
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.reconstruct.interface import (
    MemoryState,
    Outcome,
    ReconstructionFailed,
    attempt,
)
from scal3r_ros.records import Chunk, ChunkPrediction

SAME_PLACE = 30.0
"""Metres beyond which the two windows of a loop chunk cannot see the same thing."""
PLACE_SIZE = 6.0
"""Length over which descriptors change, metres."""


KINDS = {"sequence": 0, "loop": 1, "context": 2}
"""Each errs differently, though they may begin with the same frame."""


@dataclass(frozen=True)
class Spoil:
    """What the oracle does wrong. Zero everywhere is a perfect reconstructor."""

    seed: int = 0
    depth_noise: float = 0.0
    """Relative standard deviation of each depth."""
    outliers: float = 0.0
    """Share of pixels with a grossly wrong depth."""
    scale_drift: float = 0.0
    """Standard deviation of the log-scale change from a chunk's first to its last frame."""
    yaw_drift: float = 0.0
    """The same for heading, radians."""
    pitch_drift: float = 0.0
    scale_bias: float = 0.0
    """Mean of what `scale_drift` is the spread of: the same in every chunk."""
    yaw_bias: float = 0.0
    unit_spread: float = 0.2
    """Standard deviation of the log of a chunk's arbitrary unit."""
    dropped: tuple[int, ...] = ()
    """Indices of chunks that fail."""
    aliases: tuple[tuple[int, int], ...] = ()
    """Pairs of frames (a, b) whose neighbourhoods look alike though the places differ."""


REALISTIC = Spoil(
    depth_noise=0.03,
    outliers=0.05,
    scale_drift=0.02,
    yaw_drift=0.01,
    pitch_drift=0.002,
    scale_bias=0.012,
    yaw_bias=0.003,
)
"""Systematic and random drift that add up to what VGGT-Long reports without loop closure (Deng et
al. 2025, table 6): 36 m on KITTI 05 and 59 m on 00."""
RANDOM = replace(
    REALISTIC,
    scale_drift=0.07,
    yaw_drift=0.035,
    pitch_drift=0.007,
    scale_bias=0.0,
    yaw_bias=0.0,
)
"""The same range by random drift alone: it takes 7 % of scale and 2 degrees within a chunk."""


class OracleReconstructor:
    """Implements `Reconstructor` for frames whose ids index the city's poses."""

    name = "oracle"
    round_size: int | None = 1

    def __init__(self, city: City, spoil: Spoil | None = None) -> None:
        self.city = city
        self.spoil = Spoil() if spoil is None else spoil
        self.version = 0
        self.units: dict[int, float] = {}
        """Metres per unit of each chunk that was reconstructed."""
        self._seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        if chunk.index in self.spoil.dropped:
            raise ReconstructionFailed(f"chunk {chunk.index} is dropped by the simulation")
        random = np.random.default_rng([self.spoil.seed, chunk.frame_ids[0], KINDS[chunk.kind]])
        indices = np.array(chunk.frame_ids)
        depth, rgb = self._look(indices)
        poses, stretch = self._poses(chunk, random)
        unit = 10.0 * float(np.exp(self.spoil.unit_spread * random.standard_normal()))
        self.units[chunk.index] = unit
        depth *= (stretch / unit)[:, None, None].astype(np.float32)
        confidence = self._spoil_depth(depth, random)
        poses[:, :3, 3] /= unit
        self.version += int(contribute)
        return ChunkPrediction(
            chunk_index=chunk.index,
            frame_ids=chunk.frame_ids,
            T_chunk_camera=poses,
            intrinsics=np.tile(self.city.intrinsics, (len(indices), 1, 1)),
            depth=depth,
            confidence=confidence,
            rgb=rgb,
            descriptors=self.descriptors(indices),
            memory_version=self.version,
        )

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        return [attempt(self, chunk) for chunk in chunks]

    def reset(self) -> None:
        self.version = 0

    def state(self) -> MemoryState:
        return MemoryState("oracle", "oracle", self.version)

    def restore(self, state: MemoryState) -> None:
        if state.kind != "oracle":
            raise ValueError(f"memory of {state.kind} does not fit the oracle")
        self.version = state.version

    def descriptors(self, indices: np.ndarray) -> np.ndarray:
        """Unit vectors (S, 256) whose cosine falls with the distance and turn between two views."""
        random = np.random.default_rng(7)
        frequencies, phases = random.standard_normal((4, 256)), random.uniform(0, 2 * np.pi, 256)
        seen = np.array([self._looks_like(int(index)) for index in indices])
        poses = self.city.T_world_camera[seen]
        view = np.concatenate([poses[:, :2, 3] / PLACE_SIZE, 2.0 * poses[:, :2, 2]], axis=1)
        features = np.cos(view @ frequencies + phases)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        return features.astype(np.float32)

    def _look(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True depth and colour; the newest frames are kept, as the next chunk shares half of
        them."""
        fresh = [int(index) for index in indices if int(index) not in self._seen]
        if fresh:
            self._seen.update(zip(fresh, zip(*self.city.render(np.array(fresh)))))
        views = [self._seen[int(index)] for index in indices]
        for old in list(self._seen)[:-120]:
            del self._seen[old]
        return np.stack([depth for depth, _ in views]), np.stack([rgb for _, rgb in views])

    def _looks_like(self, index: int) -> int:
        for a, b in self.spoil.aliases:
            if abs(index - b) <= 10:
                return a + index - b
        return index

    def _poses(self, chunk: Chunk, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Drifting T_chunk_camera (S, 4, 4) in metres and the local scale (S,) of each frame."""
        true = self.city.T_world_camera[list(chunk.frame_ids)]
        if chunk.kind == "loop":
            true = self._hallucinate(true, chunk)
        count = len(true)
        middle = middle_position(count)
        share = np.arange(count) / max(count - 1, 1) - middle / max(count - 1, 1)
        slopes = random.standard_normal(3) * (
            self.spoil.scale_drift, self.spoil.yaw_drift, self.spoil.pitch_drift
        )  # fmt: skip
        slopes += (self.spoil.scale_bias, self.spoil.yaw_bias, 0.0)
        stretch = np.exp(slopes[0] * share)
        turn = np.zeros((count, 7))
        turn[:, 3], turn[:, 4] = slopes[2] * share, -slopes[1] * share
        bend = Sim3.exp(turn).rotation
        relative = np.linalg.inv(true[:-1]) @ true[1:]
        drifting = [np.eye(4)]
        for i, step in enumerate(relative):
            step = step.copy()
            step[:3, 3] *= np.sqrt(stretch[i] * stretch[i + 1])
            step[:3, :3] = step[:3, :3] @ (bend[i].T @ bend[i + 1])
            drifting.append(drifting[-1] @ step)
        poses = np.stack(drifting)
        return np.linalg.inv(poses[middle]) @ poses, stretch

    def _hallucinate(self, true: np.ndarray, chunk: Chunk) -> np.ndarray:
        """Windows of different places that look alike are put on top of each other."""
        ids = np.array(chunk.frame_ids)
        split = int(np.argmax(np.diff(ids))) + 1 if len(ids) > 1 else 0
        a, b = true[:split], true[split:]
        if not split or np.linalg.norm(a[len(a) // 2, :3, 3] - b[len(b) // 2, :3, 3]) < SAME_PLACE:
            return true
        onto = a[len(a) // 2] @ np.linalg.inv(b[len(b) // 2])
        return np.concatenate([a, onto @ b])

    def _spoil_depth(self, depth: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Noise and outliers in place; returns confidence (S, H, W)."""
        seen = np.isfinite(depth)
        if self.spoil.depth_noise:
            noise = random.standard_normal(depth.shape, dtype=np.float32)
            depth *= np.exp(np.float32(self.spoil.depth_noise) * noise)
        confidence = np.where(seen, np.float32(3.0), np.float32(0.0))
        confidence *= random.uniform(0.7, 1.3, depth.shape).astype(np.float32)
        if self.spoil.outliers:
            wrong = random.random(depth.shape) < self.spoil.outliers
            depth[wrong] *= random.uniform(1.5, 6.0, int(wrong.sum())).astype(np.float32)
            confidence[wrong] *= 0.7
        return confidence
