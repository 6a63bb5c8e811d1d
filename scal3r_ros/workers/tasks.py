"""What a worker is told and what it tells: plain records, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scal3r_ros.reconstruct.interface import OutOfDeviceMemory, ReconstructionFailed
from scal3r_ros.records import Chunk, ChunkPrediction
from scal3r_ros.workers.membership import JOINING, Origin


@dataclass(frozen=True)
class MemorySummary:
    """The committed memory in a few numbers."""

    chunks: int = 0
    layers: tuple[int, ...] = ()
    norms: tuple[float, ...] = ()
    """Frobenius norm of what is kept for each layer."""
    digest: str = ""
    """The same for memories that agree bit for bit."""


@dataclass(frozen=True)
class Assignment:
    """The planned group, as a worker needs to know it."""

    generation: int
    workers: tuple[str, ...]
    """Names in rank order."""
    address: str
    port: int
    """Of the rendezvous store."""
    origin: Origin = Origin()
    snapshot_request: int = 0
    """Rank 0 stores its memory under `snapshot_key(n)` once per request."""


@dataclass(frozen=True, eq=False)
class Work:
    """One chunk of a round for this worker, or none: then it only joins the exchange."""

    generation: int
    round: int
    size: int
    """Chunks of the whole round."""
    share: int
    """Chunks of it for this worker."""
    place: int
    chunk: Chunk | None
    contribute: bool = True
    token: Any = None
    """The asker's own, handed back with the answer."""


@dataclass(frozen=True)
class Answer:
    """What became of one chunk."""

    work: Work
    result: ChunkPrediction | ReconstructionFailed | OutOfDeviceMemory
    absorbed: bool = False
    """The memory has the chunk, also if its prediction failed."""
    retry: bool = False
    """Nothing was absorbed, and the chunk is not at fault."""


@dataclass(frozen=True)
class WorkerStatus:
    """What a sign of life tells."""

    state: str = JOINING
    generation: int = 0
    rank: int = 0
    round: int = 0
    committed: int = -1
    snapshot_done: int = 0
    sync_bytes: int = 0
    sync_seconds: float = 0.0
    round_seconds: float = 0.0
    memory: MemorySummary = MemorySummary()
    staleness: int = 0
    """Async: chunks announced by others and not merged here yet."""
    message: str = "loading"
