"""Chunks that tell what their poses mean are joined by that, and the overlap is asked about it."""

from dataclasses import replace

import numpy as np
import pytest
from clouds import TRUTH, error, prediction, seen_from

from scal3r_ros.config import AlignmentConfig, GraphConfig
from scal3r_ros.mapping.alignment import LEAST_SIGMA, align
from scal3r_ros.mapping.gauge import join
from scal3r_ros.mapping.pose_graph import PoseGraph
from scal3r_ros.mapping.sim3 import Sim3

CONFIG = AlignmentConfig()
IDENTITY = Sim3.identity()
MOVED = Sim3(np.array(1.0), TRUTH.rotation, TRUTH.translation)
"""A rigid motion."""


def test_without_a_gauge_the_overlap_decides():
    previous = prediction()
    current = seen_from(TRUTH, previous)
    found, expected = join(previous, current, CONFIG), align(previous, current, CONFIG)
    assert found.method == "depth" and not found.contradiction
    np.testing.assert_array_equal(
        error(found.S_previous_current), error(expected.S_previous_current)
    )


@pytest.mark.parametrize("gauge, truth", [("common", IDENTITY), ("rigid", MOVED)])
def test_a_gauge_that_holds_is_exact_and_uncontradicted(gauge, truth):
    previous = prediction()
    found = join(previous, seen_from(truth, previous, gauge=gauge), CONFIG)
    assert found.accepted and found.method == gauge and not found.contradiction
    assert error(found.S_previous_current, truth).max() < 1e-9
    assert found.sigma[2] == LEAST_SIGMA[2]


@pytest.mark.parametrize("gauge", ["common", "rigid"])
def test_noise_in_depth_does_not_move_a_chunk_that_knows_its_place(gauge):
    previous = prediction()
    current = seen_from(IDENTITY, previous, gauge=gauge)
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(current.depth.shape))
    current = replace(current, depth=(current.depth * noise).astype(np.float32))
    found = join(previous, current, CONFIG)
    assert error(found.S_previous_current, IDENTITY).max() < 1e-9
    assert not found.contradiction


def test_a_contradiction_is_told_with_what_the_overlap_says():
    previous = prediction()
    larger = Sim3(np.array(1.5), TRUTH.rotation, TRUTH.translation)
    found = join(previous, seen_from(larger, previous, gauge="rigid"), CONFIG)
    assert found.accepted and float(found.S_previous_current.scale) == 1.0
    assert "scaled by 1.500" in found.contradiction
    found = join(previous, seen_from(MOVED, previous, gauge="common"), CONFIG)
    assert error(found.S_previous_current, IDENTITY).max() == 0
    turn = np.degrees(np.linalg.norm(MOVED.log()[3:6]))
    assert f"turned by {turn:.1f} degrees" in found.contradiction


def test_scale_is_certain_inside_a_segment_and_as_sure_as_depth_at_its_start():
    previous = prediction()
    drifted = Sim3(np.array(1.05), TRUTH.rotation, TRUTH.translation)
    inside = join(previous, seen_from(drifted, previous, gauge="rigid"), CONFIG)
    start = seen_from(drifted, previous, gauge="rigid", starts_segment=True)
    across = join(previous, start, CONFIG)
    assert inside.sigma[2] == LEAST_SIGMA[2]
    assert across.sigma[2] > np.log(1.05)


def test_a_loop_corrects_scale_between_segments_and_not_inside():
    """Five chunks, the memory emptied before the fourth, and a loop that finds the last too
    small."""
    graph, S = PoseGraph(), IDENTITY
    graph.add_node(0, S)
    shrunk = Sim3(np.array(1.0 / 1.3), np.eye(3), np.zeros(3))
    for chunk in range(1, 5):
        starts = chunk == 3
        previous = prediction(chunk - 1, seed=chunk)
        true = shrunk.inverse() if starts else IDENTITY
        options = {"gauge": "rigid" if starts else "common", "starts_segment": starts}
        found = join(previous, seen_from(true, previous, chunk, **options), CONFIG)
        S = S @ found.S_previous_current
        graph.add_node(chunk, S)
        graph.add_edge(chunk - 1, chunk, found.S_previous_current, sigma=found.sigma)
    graph.add_edge(0, 4, S @ shrunk.inverse(), "loop", np.array([0.1, 0.01, 0.01]))
    graph.solve(GraphConfig())
    scales = np.array([float(graph.nodes[i].scale) for i in range(5)])
    np.testing.assert_allclose(scales[:3], 1.0, rtol=0.01)
    np.testing.assert_allclose(scales[3:], 1.3, rtol=0.01)


def test_an_overlap_that_cannot_be_compared_is_told():
    previous = prediction()
    current = seen_from(IDENTITY, previous, gauge="common")
    blind = replace(current, confidence=np.zeros_like(current.confidence))
    found = join(previous, blind, CONFIG)
    assert found.accepted and found.contradiction == "no_valid_pixels"
    assert np.isfinite(found.sigma).all() and np.isfinite(found.covariance).all()
    apart = replace(current, frame_ids=tuple(range(50, 50 + len(current.frame_ids))))
    assert not join(previous, apart, CONFIG).accepted


def test_gauges_have_names():
    with pytest.raises(ValueError, match="gauge must be one of free, rigid, common"):
        replace(prediction(), gauge="loose")
