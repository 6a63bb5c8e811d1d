"""How well each chunk's place is known relative to the map's first chunk."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from scal3r_ros.mapping.sim3 import Sim3

DISCONNECTED = 1e6
"""Variance reported for a chunk whose place relative to the map's first chunk is unknown."""


def placement_covariances(
    nodes: Sim3, ends: np.ndarray, sigma: np.ndarray, origin: int = 0
) -> np.ndarray:
    """(K, 7, 7) covariance of each S_map_chunk (K,) relative to the node at position `origin`, for
    right perturbations.

    Summed along the most certain path through the graph: an upper bound of the marginal that costs
    one Dijkstra run. Edges: `ends` (M, 2) positions of nodes, `sigma` (M, 3) in frames of the
    second end.
    """
    count = len(nodes.scale)
    variance = (np.repeat(sigma**2, (3, 3, 1), axis=1)).sum(axis=1)
    edges, distance, before = _most_certain_paths(ends, variance, count, origin)
    covariance = np.zeros((count, 7, 7))
    order = np.argsort(distance, kind="stable")
    for i in order[np.isfinite(distance[order])][1:].tolist():
        j = int(before[i])
        edge = edges[(j, i) if j < i else (i, j)]
        step = placed_after if ends[edge, 1] == i else _placed_before
        covariance[i] = step(covariance[j], nodes[j], nodes[i], sigma[edge])
    covariance[~np.isfinite(distance)] = unplaced()
    return covariance


def placed_after(of_a: np.ndarray, S_map_a: Sim3, S_map_b: Sim3, sigma: np.ndarray) -> np.ndarray:
    """(7, 7) covariance of S_map_b by an edge from a, whose own covariance is `of_a`; `sigma` (3,)
    in frames of b."""
    carry = (S_map_b.inverse() @ S_map_a).adjoint()
    return carry @ of_a @ carry.T + np.diag(np.repeat(sigma**2, (3, 3, 1)))


def unplaced() -> np.ndarray:
    """(7, 7) covariance of a chunk that nothing ties to the map's first one."""
    return np.diag(np.full(7, DISCONNECTED))


def _placed_before(of_b: np.ndarray, S_map_b: Sim3, S_map_a: Sim3, sigma: np.ndarray) -> np.ndarray:
    """As `placed_after`, from b back to a."""
    carry = (S_map_a.inverse() @ S_map_b).adjoint()
    return carry @ (of_b + np.diag(np.repeat(sigma**2, (3, 3, 1)))) @ carry.T


def _most_certain_paths(
    ends: np.ndarray, variance: np.ndarray, count: int, origin: int
) -> tuple[dict[tuple[int, int], int], np.ndarray, np.ndarray]:
    """The most certain edge of each pair of nodes, summed variance and predecessor of each node."""
    pairs = np.sort(ends, axis=1)
    best: dict[tuple[int, int], int] = {}
    for edge in np.argsort(-variance, kind="stable").tolist():
        best[tuple(pairs[edge].tolist())] = edge  # the most certain one comes last
    rows = np.array(list(best), dtype=np.int64).reshape(-1, 2)
    weights = variance[list(best.values())]
    adjacency = csr_matrix((weights, (rows[:, 0], rows[:, 1])), shape=(count, count))
    distance, before = dijkstra(adjacency, directed=False, indices=origin, return_predecessors=True)
    return best, distance, before
