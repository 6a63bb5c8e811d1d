"""Two maps in one state, unconnected: the second one's frames, chunks and sessions get new
numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scal3r_ros.mapping.loop_closure import LoopDetector
from scal3r_ros.mapping.point_map import PointMap
from scal3r_ros.mapping.pose_graph import PoseGraph
from scal3r_ros.mapping.trajectory import Trajectory
from scal3r_ros.pipeline.mapping_state import MappingState


@dataclass(frozen=True)
class Offsets:
    """What is added to the second map's numbers."""

    chunk: int
    frame: int
    part: int


def append(first: MappingState, second: MappingState) -> Offsets:
    """Put the second map into the first one's state, as a part whose place is arbitrary. Frames of
    the second that wait for their chunk are left out."""
    chunker = first.chunks.chunker
    offsets = Offsets(chunker.upcoming_index, first.next_frame_id, first.live_map.part + 1)
    mine, other = first.live_map, second.live_map
    moved = offsets.chunk
    mine.graph = PoseGraph.restore(
        _joined(mine.graph.state(), other.graph.state(),
                {"node_index": moved, "node_part": moved, "edge_ends": moved})
    )  # fmt: skip
    mine.trajectory = Trajectory.restore(
        _joined(mine.trajectory.state(), other.trajectory.state(),
                {"frame_id": offsets.frame, "chunk_index": moved, "seen_by": moved})
    )  # fmt: skip
    mine.points = PointMap.restore(
        mine.points.config,
        _joined(mine.points.state(), other.points.state(),
                {"anchor": moved, "chunks": moved, "session": offsets.part}),
    )  # fmt: skip
    known, added = first.loops.detector.state(), second.loops.detector.state()
    shifts = {"ids": offsets.frame, "tried": offsets.frame}
    first.loops.detector = LoopDetector.restore(
        first.loops.detector.config, _joined(known, added, shifts)
    )
    first.loops.records.adopt(second.loops.records, offsets.chunk, offsets.frame)
    mine.part = offsets.part + other.part
    first.next_frame_id += second.next_frame_id
    behind = second.chunks.chunker
    chunker.restore(
        [],
        0,
        chunker.session + behind.session + 1,
        offsets.chunk + behind.upcoming_index,
        chunker.first_size,
    )
    first.counters.update(second.counters)
    first.last_stamp_ns = None
    return offsets


def _joined(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], shifts: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Arrays of both, row by row, those of the second with their numbers shifted; what is no list
    of rows stays the first one's."""
    joined = {}
    for name, rows in first.items():
        added = second[name]
        if name in shifts:
            added = added + shifts[name]
        whole = rows.ndim == 0 or name == "solved"
        joined[name] = rows if whole else np.concatenate([rows, added])
    if "solved" in joined:
        edges, nodes = len(joined["edge_kind"]), len(joined["node_index"])
        joined["solved"] = np.array([nodes, edges, 0], np.int64)
    return joined
