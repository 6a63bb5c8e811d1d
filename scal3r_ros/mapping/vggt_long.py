"""Alignment and pose graph of VGGT-Long (Deng et al. 2025), which Scal3R's offline pipeline shares,
to the letter: for comparison with its results. Neither has a quality gate."""

from __future__ import annotations

import numpy as np

from scal3r_ros.mapping.graph_solver import (
    GraphProblem,
    GraphSolution,
    edge_jacobians,
    edge_residuals,
    solve_damped,
    sparse_jacobian,
)
from scal3r_ros.mapping.sim3 import Sim3, right_jacobian_inverse
from scal3r_ros.mapping.similarity_fit import (
    SimilarityFit,
    distances,
    settled,
    weighted_similarity,
)


def sim3_wet(
    source: np.ndarray,
    target: np.ndarray,
    confidence_source: np.ndarray,
    confidence_target: np.ndarray,
    delta: float = 0.1,
    iterations: int = 5,
    scale: float | None = None,
) -> SimilarityFit:
    """Confidence-weighted similarity with Huber reweighting (VGGT-Long's chunk alignment, with its
    constants), in the points' dtype.

    source, target: (N, 3) matched points; delta in target units.
    """
    tau = 0.1 * min(np.median(confidence_source), np.median(confidence_target))
    keep = (confidence_source > tau) & (confidence_target > tau)
    base = np.sqrt(confidence_source[keep] * confidence_target[keep])
    points, goal = source[keep], target[keep]
    best = weighted_similarity(points, goal, base, scale)
    previous_cost, rounds = np.inf, 0
    for _ in range(iterations):
        residual = distances(best, points, goal)
        huber = np.where(residual <= delta, 1.0, delta / np.maximum(residual, 1e-30))
        loss = np.where(residual <= delta, 0.5 * residual**2, delta * (residual - 0.5 * delta))
        cost = float((base * loss).sum())
        weights = (base * huber).astype(base.dtype)
        fitted = weighted_similarity(points, goal, weights / (weights.sum() + 1e-12), scale)
        if settled(best, fitted) or abs(previous_cost - cost) < 1e-9 * previous_cost:
            break
        best, previous_cost, rounds = fitted, cost, rounds + 1
    return SimilarityFit(best, distances(best, source, target), rounds)


def solve_graph(problem: GraphProblem, max_iterations: int) -> GraphSolution:
    """VGGT-Long's loop optimisation: variables log(S^-1), additive update, identity weights, free
    gauge.

    Sequence constraints are replaced by the chained initial values, which they equal.
    """
    variables = problem.nodes.inverse().log()
    history, damping, iterations = [], 1e-6, 0
    residuals, jacobian = _system(variables, problem)
    initial = cost = float((residuals**2).mean()) if len(residuals) else 0.0
    while iterations < max_iterations and len(residuals):
        history.append(cost)
        iterations += 1
        if cost < 1e-5 and iterations > 5 and history[-6] < 1.5 * cost:
            break
        step = solve_damped(jacobian, residuals.ravel(), damping)
        candidate = variables + step.reshape(variables.shape)
        trial = edge_residuals(Sim3.exp(candidate).inverse(), problem)
        if (trial**2).mean() < cost:
            variables, damping = candidate, damping / 2.0
            residuals, jacobian = _system(variables, problem)
            cost = float((residuals**2).mean())
        else:
            damping *= 2.0
    solved = Sim3.exp(variables).inverse()
    first = int(problem.held[0]) if len(problem.held) else 0
    S_fixed = problem.nodes[first] @ solved[first].inverse()
    nodes = Sim3.stack([S_fixed @ solved[i] for i in range(len(solved.scale))])
    return GraphSolution(nodes, initial, cost, iterations, np.ones(len(problem.ends)))


def _system(variables: np.ndarray, problem: GraphProblem):
    nodes = Sim3.exp(variables).inverse()
    residuals, by_a, by_b = edge_jacobians(nodes, problem)
    # exp(x + d)^-1 = exp(x)^-1 exp(-J d) with J the left Jacobian: chain it to the group's.
    left = -np.linalg.inv(right_jacobian_inverse(-variables))
    by_a, by_b = by_a @ left[problem.ends[:, 0]], by_b @ left[problem.ends[:, 1]]
    return residuals, sparse_jacobian(problem, by_a, by_b, np.ones_like(residuals))
