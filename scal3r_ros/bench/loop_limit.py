"""What loops could give at best: the same graph with every true revisit, measured without error.

What is left then has drifted on stretches that are driven only once; no loop can know of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scal3r_ros.bench.city import City
from scal3r_ros.config import GraphConfig
from scal3r_ros.mapping.pose_graph import CHAIN, PoseGraph
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.mapping.similarity_fit import weighted_similarity
from scal3r_ros.mapping.trajectory import Trajectory

PLACE_DISTANCE = 13.0
"""Metres between the middle frames of two chunks that see the same place."""
EXACT = np.array([5e-4, 2e-4, 5e-4])
"""Standard deviations of a loop that is measured without error."""


@dataclass(frozen=True)
class LoopLimit:
    """RMS position errors after similarity alignment, metres."""

    without_loops: float
    """Of the chain of sequence constraints alone."""
    best: float
    """With every revisit given exactly."""
    revisits: int
    """Pairs of chunks that see the same place again."""


def loop_limit(
    graph: PoseGraph, trajectory: Trajectory, city: City, units: Mapping[int, float]
) -> LoopLimit:
    """Solve a mapped drive again, without loops and with all true ones.

    units: metres per unit of each chunk. Frame ids index the city's poses.
    """
    true = true_places(graph, trajectory, city, units)
    ideal = _chained(graph)
    without = _error(ideal, trajectory, city)
    pairs = _revisits(true)
    for a, b in pairs:
        ideal.add_edge(a, b, true[a].inverse() @ true[b], "loop", EXACT)
    ideal.solve(GraphConfig(loop_kernel=0.0, max_iterations=100))
    return LoopLimit(without, _error(ideal, trajectory, city), len(pairs))


def position_error(found: np.ndarray, frame_ids: Sequence[int], city: City) -> float:
    """RMS distance of camera centres (N, 3) from the true ones after the best similarity,
    metres."""
    true = city.T_world_camera[list(frame_ids), :3, 3]
    S_world_map = weighted_similarity(found, true, np.ones(len(found)))
    return float(np.sqrt(np.mean(np.sum((S_world_map.apply(found) - true) ** 2, axis=1))))


def _error(graph: PoseGraph, trajectory: Trajectory, city: City) -> float:
    centres = trajectory.matrices(graph.nodes)[:, :3, 3]
    return position_error(centres, trajectory.frame_ids, city)


def _chained(graph: PoseGraph) -> PoseGraph:
    """The chunks where the sequence constraints alone put them."""
    chained = PoseGraph()
    for edge in graph.edges:
        if edge.kind not in CHAIN:
            continue
        if edge.a not in chained.nodes:
            chained.add_node(edge.a, Sim3.identity())
        chained.add_node(edge.b, chained.nodes[edge.a] @ edge.S_a_b)
        chained.add_edge(edge.a, edge.b, edge.S_a_b, edge.kind, edge.sigma)
    return chained


def true_places(graph, trajectory: Trajectory, city: City, units) -> dict[int, Sim3]:
    """S_world_chunk: a chunk's frame is that of a camera, found by the pose of any of its
    frames."""
    rows = trajectory.state()
    places = {}
    for chunk in graph.nodes:
        own = np.flatnonzero(rows["chunk_index"] == chunk)
        # The frame nearest to the chunk's middle camera, whose own pose there is the identity.
        distance = np.linalg.norm(rows["T_chunk_camera"][own, :3, 3], axis=1)
        middle = own[int(distance.argmin())]
        T = city.T_world_camera[rows["frame_id"][middle]]
        T = T @ np.linalg.inv(rows["T_chunk_camera"][middle])
        places[chunk] = Sim3(units[chunk], T[:3, :3], T[:3, 3])
    return places


def _revisits(true: Mapping[int, Sim3]) -> list[tuple[int, int]]:
    chunks = list(true)
    centres = np.array([true[c].translation for c in chunks])
    ahead = np.array([true[c].rotation[:, 2] for c in chunks])
    near = np.linalg.norm(centres[:, None] - centres[None], axis=2) < PLACE_DISTANCE
    near &= ahead @ ahead.T > 0.9
    i, j = np.nonzero(np.triu(near, 3))
    return [(chunks[a], chunks[b]) for a, b in zip(i.tolist(), j.tolist())]
