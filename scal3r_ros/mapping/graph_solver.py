"""Sparse Levenberg-Marquardt on Sim(3): held gauge, robust loops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import splu

from scal3r_ros.mapping.normal_equations import NormalEquations
from scal3r_ros.mapping.sim3 import Sim3, right_jacobian_inverse

STAGE_ITERATIONS = 4
"""Iterations for each but the last width of the shrinking kernel."""


@dataclass(frozen=True)
class GraphProblem:
    """K nodes and M edges as arrays."""

    nodes: Sim3
    """(K,) initial S_map_chunk."""
    held: np.ndarray
    """Positions of nodes that do not move, one per connected component."""
    ends: np.ndarray
    """(M, 2) positions of the nodes a, b of each edge."""
    measured: Sim3
    """(M,) S_a_b."""
    sigma: np.ndarray
    """(M, 3) standard deviations of translation, rotation, log-scale."""
    loop: np.ndarray
    """(M,) bool: gets the robust kernel."""


@dataclass(frozen=True)
class GraphSolution:
    """Optimised nodes and how the solver went."""

    nodes: Sim3
    """(K,) S_map_chunk."""
    initial_cost: float
    cost: float
    iterations: int
    loop_weights: np.ndarray
    """(M,) final kernel weights; near 0 for a loop that the rest of the graph contradicts."""


def edge_residuals(nodes: Sim3, problem: GraphProblem) -> np.ndarray:
    """(M, 7) log(S_a_b^-1 S_a^-1 S_b)."""
    a, b = nodes[problem.ends[:, 0]], nodes[problem.ends[:, 1]]
    return (problem.measured.inverse() @ a.inverse() @ b).log()


def edge_jacobians(nodes: Sim3, problem: GraphProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals (M, 7) and their derivatives (M, 7, 7) by right perturbations of nodes a and b."""
    residuals = edge_residuals(nodes, problem)
    a, b = nodes[problem.ends[:, 0]], nodes[problem.ends[:, 1]]
    by_b = right_jacobian_inverse(residuals)
    by_a = -by_b @ (b.inverse() @ a).adjoint()
    return residuals, by_a, by_b


def solve_levenberg_marquardt(
    problem: GraphProblem, max_iterations: int, loop_kernel: float
) -> GraphSolution:
    """Held gauge, update on the group, residuals in standard deviations, robust kernel on loops.

    `loop_kernel` is the kernel's width in standard deviations (0: none). It starts as wide as the
    worst loop and shrinks, so that accumulated drift does not look like a wrong loop.
    """
    whitening = 1.0 / np.repeat(problem.sigma, (3, 3, 1), axis=1)
    free = np.setdiff1d(np.arange(len(problem.nodes.scale)), problem.held)
    squares = _squares(problem.nodes, problem, whitening)
    nodes, spent = problem.nodes, 0
    widths = _kernel_widths(squares, problem.loop, loop_kernel)
    for stage, width in enumerate(widths):
        if len(free) and len(problem.ends):
            rounds = max_iterations if stage == len(widths) - 1 else STAGE_ITERATIONS
            nodes, used = _minimise(nodes, problem, whitening, width, free, rounds)
            spent += used
    initial = _cost(squares, problem.loop, loop_kernel)
    squares = _squares(nodes, problem, whitening)
    weights = _kernel_weights(squares, problem.loop, loop_kernel)
    cost = _cost(squares, problem.loop, loop_kernel)
    return GraphSolution(nodes, initial, cost, spent, weights)


def _kernel_widths(squares: np.ndarray, loop: np.ndarray, final: float) -> list[float]:
    """Shrinking kernel widths that end with `final`."""
    if final <= 0 or not loop.any():
        return [final]
    widths, width = [final], 4.0 * final
    while width < 4.0 * np.sqrt(squares[loop].max()):
        widths.append(width)
        width *= 4.0
    return widths[::-1]


def _minimise(nodes, problem, whitening, width, free, max_iterations) -> tuple[Sim3, int]:
    """Levenberg-Marquardt for one kernel width; returns nodes and iterations used."""
    damping, cost = 1e-6, _cost(_squares(nodes, problem, whitening), problem.loop, width)
    equations = NormalEquations(problem.ends, problem.held, len(nodes.scale))
    for iteration in range(max_iterations):
        residuals, by_a, by_b = edge_jacobians(nodes, problem)
        squares = ((residuals * whitening) ** 2).sum(axis=1)
        rows = whitening * np.sqrt(_kernel_weights(squares, problem.loop, width))[:, None]
        weighed = (by_a * rows[..., None], by_b * rows[..., None], residuals * rows)
        system = equations.step(*weighed)
        step, trial = np.zeros((len(nodes.scale), 7)), np.inf
        while not trial <= cost and damping < 1e8:
            step[free] = system.solve(damping)
            moved = nodes @ Sim3.exp(step)
            trial = _cost(_squares(moved, problem, whitening), problem.loop, width)
            damping *= 0.1 if trial <= cost else 10.0
        if not trial <= cost:
            return nodes, iteration + 1
        damping, gained = max(damping, 1e-12), cost - trial
        nodes, cost = moved, trial
        if gained <= 1e-6 * cost + 1e-12:
            return nodes, iteration + 1
    return nodes, max_iterations


def _squares(nodes: Sim3, problem: GraphProblem, whitening: np.ndarray) -> np.ndarray:
    return ((edge_residuals(nodes, problem) * whitening) ** 2).sum(axis=1)


def solve_damped(jacobian: csr_matrix, residuals: np.ndarray, damping: float) -> np.ndarray:
    normal = (jacobian.T @ jacobian).tocsc()
    diagonal = normal.diagonal()
    system = normal + diags(damping * diagonal + 1e-12 * max(diagonal.max(), 1e-12))
    factors = splu(
        system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )  # fmt: skip
    return -factors.solve(jacobian.T @ residuals)


def sparse_jacobian(problem: GraphProblem, by_a, by_b, row_weights) -> csr_matrix:
    edges, count = len(problem.ends), len(problem.nodes.scale)
    rows = np.broadcast_to(np.arange(7 * edges).reshape(edges, 7, 1), (edges, 7, 7))
    parts = []
    for side, block in enumerate((by_a, by_b)):
        columns = 7 * problem.ends[:, side, None, None] + np.arange(7)
        parts.append((block * row_weights[:, :, None], np.broadcast_to(columns, (edges, 7, 7))))
    values = np.concatenate([block.ravel() for block, _ in parts])
    columns = np.concatenate([column.ravel() for _, column in parts])
    both = np.concatenate([rows.ravel()] * 2)
    return coo_matrix((values, (both, columns)), shape=(7 * edges, 7 * count)).tocsr()


def _kernel_weights(squares: np.ndarray, loop: np.ndarray, width: float) -> np.ndarray:
    """Geman and McClure's kernel: the pull of a loop that contradicts the rest fades to nothing."""
    if width <= 0:
        return np.ones_like(squares)
    return np.where(loop, (width**2 / (width**2 + squares)) ** 2, 1.0)


def _cost(squares: np.ndarray, loop: np.ndarray, width: float) -> float:
    if width <= 0:
        return float(squares.sum())
    return float(np.where(loop, width**2 * squares / (width**2 + squares), squares).sum())
