"""Edges of the pose graph beside the chain and loops: to the last but one chunk, and over many
chunks by a window of frames that the network sees once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.mapping.alignment import Alignment, align
from scal3r_ros.mapping.long_context import (
    LEAST_APART,
    LEAST_VIEWS,
    ContextEdge,
    ContextWindow,
    confidence_ratio,
    context_edges,
    least_translation_sigma,
    linked_views,
    pick_window,
)
from scal3r_ros.mapping.loop_records import LoopRecords, NoRecord, reduce_prediction
from scal3r_ros.mapping.pose_graph import CHAIN
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.records import Chunk, ChunkPrediction, Event, Frame


class FarEdges:
    """What to align with what; holds no state of its own."""

    def __init__(self, config: Config) -> None:
        self._config, self._alignment = config.long_context, config.alignment
        chunk = config.chunk
        self._spans = config.graph.span_edges and 2 * chunk.overlap > chunk.size

    @property
    def wanted(self) -> bool:
        """Whether the records of chunks are needed, loops or not."""
        return self._spans or self._config.every > 0

    def span(
        self, prediction: ChunkPrediction, records: LoopRecords, live_map: LiveMap
    ) -> list[Event]:
        """Tie a chunk that has just joined to the last but one."""
        near = self._connected(live_map)[-3:]
        if not self._spans or len(near) < 3 or prediction.gauge != "free":
            return []
        older, newest = near[0], prediction.chunk_index
        try:
            alignment = self._fit(older, prediction, records)
        except NoRecord as missing:
            return [Event("span_refused", f"chunks {older} and {newest}: {missing}", newest)]
        if alignment is None:
            return []
        if not alignment.accepted:
            text = f"chunks {older} and {newest}: {'; '.join(alignment.attempts)}"
            return [Event("span_refused", text, newest)]
        edge = ContextEdge(older, newest, alignment.S_previous_current, alignment.sigma)
        self._add([edge], "span", live_map)
        return []

    def window(
        self, live_map: LiveMap, records: LoopRecords, tail: bool = False
    ) -> ContextWindow | None:
        """The window that is due after the newest chunk: every few chunks, and with `tail` for the
        rest at the end of a chain."""
        every, count = self._config.every, len(live_map.graph.nodes)
        if not every or (count % every == 0) == tail:
            return None
        chain = [c for c in self._connected(live_map)[-self._config.span :] if c in records]
        if len(chain) <= LEAST_APART:
            return None
        return pick_window({c: records.frame_ids(c) for c in chain}, self._config.views)

    def chunk(
        self,
        window: ContextWindow,
        records: LoopRecords,
        index: int,
        first_size: tuple[int, int] | None,
        session: int,
    ) -> Chunk:
        """The window's frames as a chunk; raises `NoRecord`."""
        frames: dict[int, Frame] = {}
        for owner in window.chunks:
            own = [f for f, o in zip(window.frame_ids, window.owners) if o == owner]
            frames |= {frame.id: frame for frame in records.frames(owner, own)}
        images = tuple(frames[i] for i in window.frame_ids)
        return Chunk(index, session, images, kind="context", first_size=first_size)

    def tie(
        self,
        window: ContextWindow,
        prediction: ChunkPrediction,
        records: LoopRecords,
        live_map: LiveMap,
    ) -> str:
        """Add the edges that a window proves; returns why it proves none, or nothing."""
        fits, shared, ratios, failures = {}, {}, [], []
        for chunk in window.chunks:
            ids = [i for i in prediction.frame_ids if i in records.frame_ids(chunk)]
            try:
                alignment = self._fit(chunk, prediction, records)
                recorded = records.prediction(chunk, ids)
            except NoRecord as missing:
                return str(missing)
            if alignment is None:
                failures.append(f"{chunk}: only {len(ids)} views")
                continue
            ratios.append(confidence_ratio(prediction.of_frames(ids), recorded))
            if alignment.accepted and alignment.residual <= self._config.max_residual:
                fits[chunk], shared[chunk] = alignment, ids
            else:
                failures.append(f"{chunk}: {alignment.failure or 'large_residual'}")
        ratio = float(np.median(ratios)) if ratios else 0.0
        if ratio < self._config.min_confidence:
            return f"its confidence is {ratio:.2f} of the chunks'"
        seen = replace(window, frame_ids=prediction.frame_ids, owners=())
        edges = context_edges(seen, linked_views(prediction), fits, shared)
        if not edges:
            why = f" (does not fit chunks {', '.join(failures)})" if failures else ""
            return f"no two distant chunks both fit it and are linked by its views{why}"
        self._add(edges, "context", live_map)
        return ""

    def _fit(
        self, chunk: int, prediction: ChunkPrediction, records: LoopRecords
    ) -> Alignment | None:
        """S_chunk_prediction on the frames that both have; None if those are too few."""
        ids = [i for i in prediction.frame_ids if i in records.frame_ids(chunk)]
        if len(ids) < LEAST_VIEWS:
            return None
        return align(records.prediction(chunk, ids), reduce_prediction(prediction, ids),
                     self._alignment)  # fmt: skip

    def _add(self, edges: Sequence[ContextEdge], kind: str, live_map: LiveMap) -> None:
        """Into the graph, none better known than the shortest believable baseline allows."""
        graph = live_map.graph
        chain = [e for e in graph.edges if e.kind in CHAIN][-self._config.span :]
        steps = np.array([np.linalg.norm(e.S_a_b.translation) * graph.nodes[e.a].scale
                          for e in chain])  # fmt: skip
        least = least_translation_sigma(steps)
        for edge in edges:
            sigma = edge.sigma.copy()
            sigma[0] = max(sigma[0], least / float(graph.nodes[edge.b].scale))
            graph.add_edge(edge.a, edge.b, edge.S_a_b, kind, sigma)

    @staticmethod
    def _connected(live_map: LiveMap) -> list[int]:
        """Chunks that hang together with the newest one, oldest first."""
        parts = live_map.graph.components()
        newest = next(reversed(parts.values()), None)
        return [chunk for chunk, part in parts.items() if part == newest]
