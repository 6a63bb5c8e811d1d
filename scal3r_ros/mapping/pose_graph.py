"""Sim(3) pose graph: one node per chunk, relative constraints between them.

Nodes S_map_chunk; an edge (a, b) measures S_a_b, the pose of chunk b in chunk a. The residual of an
edge, log(S_a_b^-1 S_map_a^-1 S_map_b), lives in chunk b.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from scal3r_ros.config import GraphConfig
from scal3r_ros.mapping import vggt_long
from scal3r_ros.mapping.graph_covariance import (
    placed_after,
    placement_covariances,
    unplaced,
)
from scal3r_ros.mapping.graph_solver import (
    GraphProblem,
    GraphSolution,
    solve_levenberg_marquardt,
)
from scal3r_ros.mapping.sim3 import Sim3

MOST_TIED = 200
"""Chunks that are looked at around one: a bound on the cost, not on the map."""
STILL = 1e-7
"""A node that the solver moves by less (translation in units of its chunk, radians, log-scale)
stays as it is, so that who follows the map is told of what moved alone."""
CHAIN = ("sequence", "odometry")
"""Kinds of edges that place a new chunk."""
DOUBTED = ("context", "loop")
"""Kinds that the rest of the graph may contradict; they get the robust kernel."""


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """A measured relative transform and how far it is believed."""

    a: int
    b: int
    S_a_b: Sim3
    kind: str
    """`sequence`, `odometry`, `span`, `context` or `loop`."""
    sigma: np.ndarray
    """(3,) standard deviations: translation in units of chunk b, rotation in radians, log-scale."""


class PoseGraph:
    """Chunks in the map and what ties them together; the first node of each component is held."""

    def __init__(self) -> None:
        self._nodes: dict[int, Sim3] = {}
        self._parts: dict[int, int] = {}
        self.edges: list[GraphEdge] = []
        self._edges_of: defaultdict[int, list[GraphEdge]] = defaultdict(list)
        self._solved = (0, 0)
        """Number of nodes and edges when the graph was solved last."""
        self._united = False
        self.pending: list[GraphEdge] = []
        """Loops that the nodes do not know of yet, because the graph was not solved since."""
        self._covariances: dict[int, np.ndarray] | None = None
        """As `covariances` gave it last, if that holds still."""

    @property
    def nodes(self) -> Mapping[int, Sim3]:
        """S_map_chunk by chunk index, in order of insertion."""
        return self._nodes

    def add_node(self, index: int, S_map_chunk: Sim3) -> None:
        if index in self._nodes:
            raise ValueError(f"chunk {index} is already in the graph")
        self._nodes[index] = S_map_chunk
        self._parts[index] = index
        if self._covariances is not None:
            self._covariances[index] = unplaced() if self._covariances else np.zeros((7, 7))

    def add_edge(
        self, a: int, b: int, S_a_b: Sim3, kind: str = "sequence", sigma: np.ndarray | None = None
    ) -> None:
        """Tie chunk b to chunk a; both must be nodes.

        An edge between two components moves the later component, whose place was arbitrary so far.
        """
        missing = [index for index in (a, b) if index not in self._nodes]
        if missing:
            raise ValueError(f"edge ({a}, {b}): chunk {missing[0]} is not in the graph")
        alone = self._parts[b] == b == next(reversed(self._nodes)) and a != b
        if self._parts[a] != self._parts[b]:
            self._join(a, b, S_a_b)
            self._united |= kind not in CHAIN
        believed = np.ones(3) if sigma is None else np.asarray(sigma, dtype=np.float64)
        self._extend_covariances(a, b, believed, alone)
        self._keep(GraphEdge(a, b, S_a_b, kind, believed))

    def components(self) -> dict[int, int]:
        """The connected part that each chunk belongs to, named by the first chunk in it."""
        return dict(self._parts)

    def transform(self, S_new_old: Sim3) -> None:
        """Express the whole map in another frame."""
        self._covariances = None
        self._nodes = {index: S_new_old @ node for index, node in self._nodes.items()}

    def due(self, config: GraphConfig) -> bool:
        """Whether the graph should be solved now: a new loop contradicts the map or united two
        parts of it, or has waited long enough."""
        if not self.pending or self._united:
            return self._united
        if len(self._nodes) - self._solved[0] >= config.solve_every:
            return True
        sigmas = np.repeat([edge.sigma for edge in self.pending], (3, 3, 1), axis=1)
        changes = np.array([self.correction(edge.a, edge.b, edge.S_a_b) for edge in self.pending])
        return bool(np.sqrt(((changes / sigmas) ** 2).mean(axis=1)).max() > config.solve_above)

    def correction(self, a: int, b: int, S_a_b: Sim3) -> np.ndarray:
        """(7,) log of what an edge would have to correct, in units of chunk b."""
        return (S_a_b.inverse() @ self._nodes[a].inverse() @ self._nodes[b]).log()

    def solve(self, config: GraphConfig) -> GraphSolution:
        """Optimise all nodes in place; VGGT-Long starts from the chained constraints."""
        self._covariances = None
        if config.method == "vggt_long":
            self._rechain()
            problem = self._problem(reverse_chain=True)
            solution = vggt_long.solve_graph(problem, config.max_iterations)
        else:
            problem = self._problem()
            solution = solve_levenberg_marquardt(problem, config.max_iterations, config.loop_kernel)
        nodes = solution.nodes.orthonormal()
        change = (Sim3.stack(list(self._nodes.values())).inverse() @ nodes).log()
        moved = (np.abs(change) > STILL).any(axis=1)
        for i, index in enumerate(self._nodes):
            if moved[i]:
                self._nodes[index] = nodes[i]
        self._solved, self._united = (len(self._nodes), len(self.edges)), False
        self.pending = []
        return solution

    @property
    def connected(self) -> bool:
        """Whether the newest chunk hangs together with the first one."""
        parts = self._parts.values()
        return not parts or next(iter(parts)) == next(reversed(parts))

    def covariances(self) -> Mapping[int, np.ndarray]:
        """(7, 7) covariance of each S_map_chunk relative to the first chunk, right perturbations,
        by chunk index. At the end of a chain one more chunk costs one step."""
        if self._covariances is None:
            self._covariances = {}
            if self._nodes:
                problem = self._problem()
                found = placement_covariances(problem.nodes, problem.ends, problem.sigma)
                self._covariances = dict(zip(self._nodes, found))
        return self._covariances

    def tied(self, index: int, error: float, reach: float) -> Iterator[int]:
        """Chunks whose place relative to chunk `index` is known so well that a point at a distance
        of `reach` is off by less than `error` (one standard deviation, map units along the most
        certain path); the best known first, and no more than `MOST_TIED`."""
        known, open_ends = {index}, [(0.0, index)]
        while open_ends and len(known) <= MOST_TIED:
            variance, chunk = heapq.heappop(open_ends)
            if chunk != index and chunk in known:
                continue
            known.add(chunk)
            if chunk != index:
                yield chunk
            for edge in self._edges_of[chunk]:
                other = edge.a if edge.b == chunk else edge.b
                shift = edge.sigma[0] * float(self._nodes[edge.b].scale)
                turn, growth = reach * edge.sigma[1], reach * edge.sigma[2]
                total = variance + shift**2 + turn**2 + growth**2
                if other not in known and total < error**2:
                    heapq.heappush(open_ends, (total, other))

    def relative_covariance(self, a: int, b: int) -> np.ndarray:
        """(7, 7) covariance of b's place relative to a; both must be connected."""
        problem, place = self._problem(), list(self._nodes)
        found = placement_covariances(problem.nodes, problem.ends, problem.sigma, place.index(a))
        return found[place.index(b)]

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays, to save and restore."""
        nodes, edges = Sim3.stack(list(self._nodes.values())), self.edges
        measured = Sim3.stack([edge.S_a_b for edge in edges])
        return {
            "solved": np.array([*self._solved, self._united], np.int64),
            "node_index": np.array(list(self._nodes), dtype=np.int64),
            "node_part": np.array(list(self._parts.values()), dtype=np.int64),
            "node_scale": nodes.scale,
            "node_rotation": nodes.rotation,
            "node_translation": nodes.translation,
            "edge_ends": np.array([(e.a, e.b) for e in edges], np.int64).reshape(-1, 2),
            "edge_kind": np.array([e.kind for e in edges], dtype="U16"),
            "edge_sigma": np.array([e.sigma for e in edges]).reshape(-1, 3),
            "edge_scale": measured.scale,
            "edge_rotation": measured.rotation,
            "edge_translation": measured.translation,
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> PoseGraph:
        graph = cls()
        nodes, measured = (
            Sim3(*(arrays[f"{part}_{name}"] for name in ("scale", "rotation", "translation")))
            for part in ("node", "edge")
        )
        graph._nodes = {int(index): nodes[i] for i, index in enumerate(arrays["node_index"])}
        for i, (a, b) in enumerate(arrays["edge_ends"].tolist()):
            kind, sigma = str(arrays["edge_kind"][i]), arrays["edge_sigma"][i]
            graph._keep(GraphEdge(a, b, measured[i], kind, sigma))
        graph._parts = {int(i): int(p) for i, p in zip(arrays["node_index"], arrays["node_part"])}
        everything = np.array([len(graph._nodes), len(graph.edges), 0])
        known = arrays.get("solved", everything)  # absent from maps of older versions
        graph._solved, graph._united = (int(known[0]), int(known[1])), bool(known[2])
        graph.pending = [e for e in graph.edges[graph._solved[1] :] if e.kind not in CHAIN]
        return graph

    def _keep(self, edge: GraphEdge) -> None:
        self.edges.append(edge)
        self.pending += [edge] if edge.kind not in CHAIN else []
        self._edges_of[edge.a].append(edge)
        self._edges_of[edge.b].append(edge)

    def _extend_covariances(self, a: int, b: int, sigma: np.ndarray, alone: bool) -> None:
        """What an edge from a tells about b, if b is new and has no other; otherwise paths through
        the graph may change."""
        if self._covariances is None or not alone:
            self._covariances = None
            return
        of_a, places = self._covariances[a], (self._nodes[a], self._nodes[b])
        unknown = np.array_equal(of_a, unplaced())
        self._covariances[b] = of_a if unknown else placed_after(of_a, *places, sigma)

    def _problem(self, reverse_chain: bool = False) -> GraphProblem:
        """The graph as arrays; with `reverse_chain` sequence residuals live in chunk a, as
        published."""
        place = {index: i for i, index in enumerate(self._nodes)}
        edges = [_reversed(e) if reverse_chain and e.kind in CHAIN else e for e in self.edges]
        held = [place[part] for part in sorted(set(self._parts.values()))]
        return GraphProblem(
            nodes=Sim3.stack(list(self._nodes.values())),
            held=np.array(held, dtype=np.int64),
            ends=np.array([(place[e.a], place[e.b]) for e in edges], np.int64).reshape(-1, 2),
            measured=Sim3.stack([edge.S_a_b for edge in edges]),
            sigma=np.array([edge.sigma for edge in edges]).reshape(-1, 3),
            loop=np.array([edge.kind in DOUBTED for edge in edges], dtype=bool),
        )

    def _rechain(self) -> None:
        """Put every chunk where the chain of sequence constraints puts it."""
        for edge in self.edges:
            if edge.kind in CHAIN:
                self._nodes[edge.b] = self._nodes[edge.a] @ edge.S_a_b

    def _join(self, a: int, b: int, S_a_b: Sim3) -> None:
        """Unite the parts of a and b; the part that began later moves to where the edge puts it."""
        stays, moves, goal = a, b, self._nodes[a] @ S_a_b
        if self._parts[b] < self._parts[a]:
            stays, moves, goal = b, a, self._nodes[b] @ S_a_b.inverse()
        S_new_old = (goal @ self._nodes[moves].inverse()).orthonormal()
        joined = self._parts[moves]
        for index in [index for index, part in self._parts.items() if part == joined]:
            self._nodes[index] = goal if index == moves else S_new_old @ self._nodes[index]
            self._parts[index] = self._parts[stays]


def _reversed(edge: GraphEdge) -> GraphEdge:
    return GraphEdge(edge.b, edge.a, edge.S_a_b.inverse(), edge.kind, edge.sigma)
