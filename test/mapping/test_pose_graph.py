"""Pose graph: Jacobians checked, gauge held, loops closed, wrong loops ignored; VGGT-Long's."""

import time

import numpy as np
import pytest

from scal3r_ros.config import GraphConfig
from scal3r_ros.mapping.graph_covariance import DISCONNECTED
from scal3r_ros.mapping.graph_solver import edge_jacobians, edge_residuals
from scal3r_ros.mapping.pose_graph import MOST_TIED, PoseGraph
from scal3r_ros.mapping.sim3 import Sim3

NOISE = np.array([0.02, 0.005, 0.01])


def ring(nodes: int, loops: int, seed: int = 0, wrong: int = 0):
    """A drifting chain around a circle several times, its loops, and the true poses."""
    random = np.random.default_rng(seed)
    angle = np.linspace(0.0, 8 * np.pi, nodes)
    true = [Sim3.exp(np.r_[0, 0, 0, 0, 0, a, 0.2 * random.standard_normal()]) for a in angle]
    circle = 50 * np.stack([np.cos(angle), np.sin(angle), 0.002 * angle], axis=1)
    true = [Sim3(S.scale, S.rotation, p) for S, p in zip(true, circle)]

    def measure(a: int, b: int) -> Sim3:
        noise = np.repeat(NOISE, (3, 3, 1)) * random.standard_normal(7)
        return true[a].inverse() @ true[b] @ Sim3.exp(noise)

    graph, S = PoseGraph(), true[0]
    graph.add_node(0, S)
    for k in range(1, nodes):
        step = measure(k - 1, k)
        S = S @ step
        graph.add_node(k, S)
        graph.add_edge(k - 1, k, step, sigma=NOISE)
    for _ in range(loops):
        a = int(random.integers(0, nodes - nodes // 4))
        graph.add_edge(a, a + nodes // 4, measure(a, a + nodes // 4), "loop", NOISE)
    for _ in range(wrong):
        a, b = sorted(random.choice(nodes, 2, replace=False).tolist())
        implied = graph.nodes[a].inverse() @ graph.nodes[b]
        bent = implied @ Sim3.exp(np.r_[10 * random.standard_normal(3), 0.3, 0.2, -0.3, 0.2])
        graph.add_edge(a, b, bent, "loop", NOISE)
    return graph, true


def position_error(graph: PoseGraph, true: list[Sim3]) -> float:
    apart = [graph.nodes[i].translation - S.translation for i, S in enumerate(true)]
    return float(np.sqrt(np.mean(np.sum(np.square(apart), axis=1))))


def test_jacobians_against_finite_differences():
    graph, _ = ring(12, 3)
    problem = graph._problem()
    shaken = problem.nodes @ Sim3.exp(0.3 * np.random.default_rng(1).standard_normal((12, 7)))
    _, by_a, by_b = edge_jacobians(shaken, problem)
    for edge, (a, b) in enumerate(problem.ends):
        for node, jacobian in ((a, by_a[edge]), (b, by_b[edge])):
            for axis in range(7):
                step = np.zeros((12, 7))
                step[node, axis] = 1e-6
                high = edge_residuals(shaken @ Sim3.exp(step), problem)[edge]
                low = edge_residuals(shaken @ Sim3.exp(-step), problem)[edge]
                np.testing.assert_allclose(
                    jacobian[:, axis], (high - low) / 2e-6, rtol=1e-5, atol=1e-5
                )


def test_exact_loops_bring_a_drifted_chain_back_exactly():
    graph, true = ring(40, 0)
    exact = PoseGraph()
    for k, S in enumerate(true):
        drift = Sim3.exp(0.01 * k * np.array([1, 2, 0, 0.1, 0, 0.2, 0.1]))
        exact.add_node(k, S if k == 0 else drift @ S)
    for k in range(1, 40):
        exact.add_edge(k - 1, k, true[k - 1].inverse() @ true[k], sigma=NOISE)
    exact.add_edge(0, 39, true[0].inverse() @ true[39], "loop", NOISE)
    solution = exact.solve(GraphConfig())
    assert solution.cost < 1e-9
    assert position_error(exact, true) < 1e-6


def test_five_hundred_nodes_and_fifty_loops_solve_within_a_second():
    graph, true = ring(500, 50)
    before, start = position_error(graph, true), time.process_time()
    solution = graph.solve(GraphConfig())
    assert time.process_time() - start < 1.0
    assert position_error(graph, true) < before / 4
    assert solution.cost < solution.initial_cost
    assert solution.iterations < 30


def test_first_node_is_held():
    graph, true = ring(60, 5)
    graph.solve(GraphConfig())
    np.testing.assert_allclose(graph.nodes[0].matrix(), true[0].matrix(), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_wrong_loops_among_true_ones_are_ignored(seed):
    clean, true = ring(200, 20, seed)
    clean.solve(GraphConfig())
    mixed, true = ring(200, 20, seed, wrong=4)
    solution = mixed.solve(GraphConfig())
    assert (solution.loop_weights[-4:] < 0.1).all()
    assert (solution.loop_weights[:-4] > 0.3).all()
    assert position_error(mixed, true) < 1.2 * position_error(clean, true) + 0.05


def test_vggt_longs_recipe_closes_the_same_loops():
    graph, true = ring(100, 10)
    before = position_error(graph, true)
    graph.solve(GraphConfig(method="vggt_long"))
    assert position_error(graph, true) < before / 2
    np.testing.assert_allclose(graph.nodes[0].matrix(), true[0].matrix(), atol=1e-9)


def test_vggt_longs_recipe_minimises_its_sum():
    graph, _ = ring(12, 2, seed=5)
    chained = dict(graph.nodes)
    graph.solve(GraphConfig(method="vggt_long"))

    def its_cost(nodes: dict[int, Sim3]) -> float:
        total = 0.0
        for edge in graph.edges:
            S_a, S_b = nodes[edge.a], nodes[edge.b]
            if edge.kind == "loop":
                total += (((edge.S_a_b.inverse() @ S_a.inverse()) @ S_b).log() ** 2).sum()
            else:
                total += ((edge.S_a_b @ S_b.inverse() @ S_a).log() ** 2).sum()
        return total

    reached = its_cost(dict(graph.nodes))
    assert reached < its_cost(chained)
    random = np.random.default_rng(3)
    for _ in range(30):
        shaken = {k: S @ Sim3.exp(1e-3 * random.standard_normal(7)) for k, S in graph.nodes.items()}
        assert its_cost(shaken) > reached


def test_a_loop_joins_a_disconnected_session_and_moves_the_later_one():
    graph = PoseGraph()
    step = Sim3.exp(np.r_[1.0, 0, 0, 0, 0, 0.1, 0.02])
    for k in range(3):
        graph.add_node(k, Sim3.identity() if k == 0 else graph.nodes[k - 1] @ step)
    for k in (7, 8):
        graph.add_node(k, Sim3.exp(np.r_[5.0, 5, 5, 1, 0, 0, 1.0]))
    graph.add_edge(0, 1, step)
    graph.add_edge(1, 2, step)
    graph.add_edge(7, 8, step)
    assert graph.components() == {0: 0, 1: 0, 2: 0, 7: 7, 8: 7}
    assert graph.covariances()[8][0, 0] == DISCONNECTED
    graph.add_edge(2, 8, step, "loop")
    assert set(graph.components().values()) == {0}
    np.testing.assert_allclose(
        graph.nodes[8].matrix(), (graph.nodes[2] @ step).matrix(), atol=1e-12
    )
    np.testing.assert_allclose(
        (graph.nodes[7] @ step).matrix(), graph.nodes[8].matrix(), atol=1e-12
    )
    assert graph.covariances()[8][0, 0] < 100


def test_rotations_stay_orthonormal_over_thousands_of_nodes():
    graph, step = PoseGraph(), Sim3.exp(np.r_[1.0, 0.2, 0, 0.3, 0.2, 0.5, 0.0])
    graph.add_node(0, Sim3.identity())
    for k in range(1, 2000):
        graph.add_node(k, graph.nodes[k - 1] @ step)
        graph.add_edge(k - 1, k, step)
    rotation = graph.nodes[1999].rotation
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-10)


def test_covariance_grows_along_the_chain_and_shrinks_by_a_loop():
    graph, _ = ring(100, 0)
    spread = [np.trace(graph.covariances()[k][:3, :3]) for k in (0, 10, 50, 99)]
    assert spread[0] == 0.0
    assert spread[1] < spread[2] < spread[3]
    graph.add_edge(0, 99, graph.nodes[0].inverse() @ graph.nodes[99], "loop", NOISE)
    assert np.trace(graph.covariances()[99][:3, :3]) < spread[1]


def test_covariance_along_a_chain_against_sampling():
    random, step = np.random.default_rng(2), Sim3.exp(np.r_[1.0, 0, 0, 0, 0, 0.2, 0.0])
    graph = PoseGraph()
    graph.add_node(0, Sim3.identity())
    for k in range(1, 9):
        graph.add_node(k, graph.nodes[k - 1] @ step)
        graph.add_edge(k - 1, k, step, sigma=NOISE)
    noise = np.repeat(NOISE, (3, 3, 1)) * random.standard_normal((8, 4000, 7))
    S = Sim3.identity((4000,))
    for k in range(8):
        S = S @ step @ Sim3.exp(noise[k])
    sampled = np.cov((graph.nodes[8].inverse() @ S).log().T)
    stated = graph.covariances()[8]
    np.testing.assert_allclose(np.diag(stated), np.diag(sampled), rtol=0.12)


def test_saved_graph_solves_the_same():
    graph, _ = ring(30, 4)
    twin = PoseGraph.restore(graph.state())
    graph.solve(GraphConfig())
    twin.solve(GraphConfig())
    for k in graph.nodes:
        np.testing.assert_array_equal(graph.nodes[k].matrix(), twin.nodes[k].matrix())
    assert twin.components() == graph.components()


def test_edges_need_their_nodes():
    graph = PoseGraph()
    graph.add_node(0, Sim3.identity())
    with pytest.raises(ValueError, match="chunk 3 is not in the graph"):
        graph.add_edge(0, 3, Sim3.identity())
    with pytest.raises(ValueError, match="chunk 0 is already"):
        graph.add_node(0, Sim3.identity())
    assert graph.solve(GraphConfig()).iterations == 0


def test_only_loops_that_contradict_the_map_are_solved_at_once():
    graph, _ = ring(40, 0)
    config = GraphConfig(solve_every=10)
    graph.solve(config)
    agreeing = graph.nodes[3].inverse() @ graph.nodes[12]
    graph.add_edge(3, 12, agreeing, "loop", NOISE)
    assert len(graph.pending) == 1
    assert not graph.due(config)
    assert graph.due(GraphConfig(solve_every=10, solve_above=0.0))
    contradicting = agreeing @ Sim3.exp(np.r_[0.5, 0, 0, 0, 0, 0, 0])
    graph.add_edge(4, 13, contradicting, "loop", NOISE)
    assert graph.due(config)
    saved = PoseGraph.restore(graph.state())
    assert saved.due(config) and len(saved.pending) == 2
    graph.solve(config)
    assert not graph.due(config) and not graph.pending


def test_an_agreeing_loop_waits_for_so_many_chunks_and_no_more():
    graph, _ = ring(20, 0)
    config = GraphConfig(solve_every=3)
    graph.solve(config)
    graph.add_edge(3, 12, graph.nodes[3].inverse() @ graph.nodes[12], "loop", NOISE)
    due = []
    for k in range(20, 24):
        graph.add_node(k, graph.nodes[k - 1])
        graph.add_edge(k - 1, k, Sim3.identity(), sigma=NOISE)
        due.append(graph.due(config))
    assert due == [False, False, True, True]


def test_a_loop_that_unites_two_parts_is_solved_at_once():
    graph, _ = ring(10, 0)
    graph.solve(GraphConfig())
    for k in (10, 11):
        graph.add_node(k, Sim3.identity())
    graph.add_edge(10, 11, Sim3.identity(), sigma=NOISE)
    assert not graph.due(GraphConfig())
    graph.add_edge(2, 11, Sim3.identity(), "loop", NOISE)
    assert graph.due(GraphConfig())


def test_covariances_are_sums_along_the_chain_whatever_the_order_of_its_chunks():
    graph, _ = ring(6, 0)
    found = graph.covariances()
    expected = np.zeros((7, 7))
    for k in range(1, 6):
        step = (graph.nodes[k].inverse() @ graph.nodes[k - 1]).adjoint()
        expected = step @ expected @ step.T + np.diag(np.repeat(NOISE**2, (3, 3, 1)))
        np.testing.assert_allclose(found[k], expected, rtol=1e-9, atol=1e-12)
    backwards = PoseGraph()
    for k in (0, 5, 4, 3, 2, 1):
        backwards.add_node(k, graph.nodes[k])
    for edge in graph.edges:
        backwards.add_edge(edge.a, edge.b, edge.S_a_b, sigma=NOISE)
    for k, covariance in backwards.covariances().items():
        np.testing.assert_allclose(covariance, found[k], rtol=1e-7, atol=1e-9)


def test_covariances_that_grow_with_the_chain_are_those_of_the_whole_graph():
    """Two parts, a loop between them, and a chain that goes on."""
    random = np.random.default_rng(3)
    graph = PoseGraph()

    def check():
        grown, whole = graph.covariances(), PoseGraph.restore(graph.state()).covariances()
        assert list(grown) == list(whole)
        for index in whole:
            np.testing.assert_array_equal(grown[index], whole[index])

    for index in range(12):
        graph.add_node(index, Sim3.exp(0.3 * random.standard_normal(7)))
        check()
        if index not in (0, 6):
            S = Sim3.exp(0.2 * random.standard_normal(7))
            graph.add_edge(index - 1, index, S, sigma=random.uniform(0.01, 0.1, 3))
            check()
    assert not graph.connected
    graph.add_edge(2, 9, Sim3.exp(0.2 * random.standard_normal(7)), "loop", np.full(3, 0.02))
    check()
    assert graph.connected
    graph.add_node(12, Sim3.identity())
    graph.add_edge(11, 12, Sim3.exp(0.1 * random.standard_normal(7)), sigma=np.full(3, 0.01))
    check()


def test_without_a_kernel_wrong_loops_pull_like_true_ones():
    kept, true = ring(100, 10, wrong=3)
    pulled, _ = ring(100, 10, wrong=3)
    kept.solve(GraphConfig(loop_kernel=10.0))
    solution = pulled.solve(GraphConfig(loop_kernel=0.0))
    np.testing.assert_array_equal(solution.loop_weights, 1.0)
    assert position_error(pulled, true) > 3 * position_error(kept, true)


@pytest.mark.parametrize("method", ["robust", "vggt_long"])
def test_iterations_are_bounded(method):
    costs = []
    for limit in (1, 2, 30):
        graph, _ = ring(60, 1)
        config = GraphConfig(method=method, max_iterations=limit, loop_kernel=0.0)
        solution = graph.solve(config)
        assert solution.iterations <= limit
        costs.append(solution.cost)
    assert costs[0] > costs[1] >= costs[2]


def test_ties_are_chunks_whose_place_is_known_well_enough():
    graph, sigma = PoseGraph(), np.array([0.02, 0.005, 0.0])
    for k in range(300):
        graph.add_node(k, Sim3.identity())
        if k:
            graph.add_edge(k - 1, k, Sim3.identity(), sigma=sigma)
    graph.add_edge(5, 150, Sim3.identity(), "loop", sigma)
    six_steps = 0.02 * np.sqrt(6.1)
    near = list(graph.tied(152, six_steps, 0.0))
    assert near[:2] in ([151, 153], [153, 151]), "the best known first"
    assert sorted(near) == [*range(2, 9), *range(146, 152), *range(153, 159)]
    far = six_steps, 4.0  # a turn of 0.005 moves what is 4 away by another 0.02
    assert sorted(graph.tied(152, *far)) == [5, *range(149, 152), *range(153, 156)]
    assert len(list(graph.tied(150, 100.0, 0.0))) == MOST_TIED
