"""Everything that a mapper knows: one object, so that another one can be made beside it and take
its place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from scal3r_ros.config import Config
from scal3r_ros.mapping.parallax import ParallaxGate
from scal3r_ros.pipeline.chunk_queue import ChunkQueue
from scal3r_ros.pipeline.far_edges import FarEdges
from scal3r_ros.pipeline.finalize import ChunkHistory
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.pipeline.loops import LoopSearch


@dataclass
class MappingState:
    """Everything about one map except the reconstructor's memory."""

    parallax: ParallaxGate
    chunks: ChunkQueue
    live_map: LiveMap
    loops: LoopSearch
    history: ChunkHistory
    far: FarEdges
    counters: Counter[str] = field(default_factory=Counter)
    """What has happened, by name."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage of the method."""
    next_frame_id: int = 0
    last_stamp_ns: int | None = None

    @classmethod
    def empty(cls, config: Config, records: Path) -> MappingState:
        """Before the first frame; `records` is the folder for what loops need of old frames."""
        far = FarEdges(config)
        return cls(
            ParallaxGate(config.gate),
            ChunkQueue(config.chunk),
            LiveMap(config),
            LoopSearch(config.loop, config.alignment, records, config.localisation, far.wanted),
            ChunkHistory(wanted=config.memory.mode == "finalize"),
            far,
        )
