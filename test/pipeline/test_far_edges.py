"""Edges to the last but one chunk and over many chunks, in the mapper."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from mapper_runs import config, relative_error, run
from oracle import OracleReconstructor, Spoil

from scal3r_ros.bench.loop_limit import true_places
from scal3r_ros.pipeline.mapper import Mapper

FAR = {"long_context.every": 3, "long_context.span": 6, "long_context.views": 24}


class NotesKinds(OracleReconstructor):
    """Which chunks it was asked for, and whether its memory was to absorb them."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def reconstruct(self, chunk, contribute=True):
        self.asked.append((chunk.kind, contribute, len(chunk.frames)))
        return super().reconstruct(chunk, contribute)


def edges(mapper, kind):
    return [edge for edge in mapper.live_map.graph.edges if edge.kind == kind]


def names(updates):
    return Counter(event.name for update in updates for event in update.events)


@pytest.mark.parametrize(("kind", "options"), [("context", FAR), ("span", {"chunk__overlap": 12})])
def test_without_errors_every_edge_is_where_the_chunks_are(street, kind, options):
    oracle = NotesKinds(street, Spoil())
    mapper = Mapper(config(**options), oracle)
    updates = run(street, mapper)
    live_map = mapper.live_map
    true = true_places(live_map.graph, live_map.trajectory, street, oracle.units)
    assert len(edges(mapper, kind)) >= 4
    for edge in edges(mapper, kind):
        off = (edge.S_a_b.inverse() @ true[edge.a].inverse() @ true[edge.b]).log()
        assert np.abs(off / np.repeat(edge.sigma, (3, 3, 1))).max() < 1.0  # half precision
        assert np.abs(off).max() < 5e-3
    assert names(updates)["context_tied"] == (2 if kind == "context" else 0)
    assert {asked[1] for asked in oracle.asked if asked[0] == "context"} <= {False}
    assert oracle.version == mapper.counters["chunks"]


def test_windows_take_most_of_a_steady_drift_away(street):
    """Two per cent of scale within every chunk, and as much within a window over six of them."""
    spoil = Spoil(scale_bias=0.02, yaw_bias=0.01)
    chained = Mapper(config(), OracleReconstructor(street, spoil))
    run(street, chained)
    oracle = NotesKinds(street, spoil)
    tied = Mapper(config(**FAR), oracle)
    run(street, tied)
    drift = [relative_error(street, mapper.trajectory()) for mapper in (chained, tied)]
    assert drift[1] < 0.5 * drift[0], drift
    views = Counter()
    for kind, _, frames in oracle.asked:
        views[kind] += frames
    assert views["context"] <= 24 * 2


class DoubtsWindows(OracleReconstructor):
    """Half as sure of a window as of a chunk."""

    def reconstruct(self, chunk, contribute=True):
        found = super().reconstruct(chunk, contribute)
        doubt = 0.5 if chunk.kind == "context" else 1.0
        return replace(found, confidence=doubt * found.confidence)


def test_a_window_that_is_not_sure_of_itself_is_dropped_with_the_reason(street):
    mapper = Mapper(config(**FAR), DoubtsWindows(street, Spoil()))
    updates = run(street, mapper)
    refused = [e for u in updates for e in u.events if e.name == "context_refused"]
    assert len(refused) == 2 and not edges(mapper, "context")
    assert all("confidence is 0.50" in event.message for event in refused)
    lenient = config(**FAR, long_context__min_confidence=0.4)
    mapper = Mapper(lenient, DoubtsWindows(street, Spoil()))
    run(street, mapper, range(50))
    assert edges(mapper, "context")


def test_a_window_that_does_not_fit_well_enough_ties_nothing(street):
    strict = config(**FAR, long_context__max_residual=1e-5)
    mapper = Mapper(strict, OracleReconstructor(street, Spoil()))
    updates = run(street, mapper, range(50))
    refused = [e.message for u in updates for e in u.events if e.name == "context_refused"]
    assert refused and all("large_residual" in message for message in refused)


def test_ties_to_the_last_but_one_chunk_can_be_switched_off(street):
    settings = config(chunk__overlap=12, graph__span_edges=False)
    mapper = Mapper(settings, OracleReconstructor(street, Spoil()))
    run(street, mapper, range(32))
    assert not edges(mapper, "span")


def test_a_window_that_shows_another_world_ties_nothing(street):
    class Elsewhere(OracleReconstructor):
        def reconstruct(self, chunk, contribute=True):
            found = super().reconstruct(chunk, contribute)
            if chunk.kind == "context":
                noise = np.random.default_rng(0).uniform(0.2, 5, found.depth.shape)
                found = replace(found, depth=(found.depth * noise).astype(np.float32))
            return found

    mapper = Mapper(config(**FAR), Elsewhere(street, Spoil()))
    updates = run(street, mapper)
    assert names(updates)["context_refused"] == 2 and not edges(mapper, "context")


def test_poses_have_no_step_where_chunks_meet(street):
    spoil = Spoil(scale_drift=0.1, yaw_drift=0.1)
    steps = []
    for blend in (False, True):
        mapper = Mapper(config(map__blend_poses=blend), OracleReconstructor(street, spoil))
        run(street, mapper)
        true = street.T_world_camera[:, :3, 3]
        found = np.array([pose.T_map_camera[:3, 3] for pose in mapper.trajectory()])
        speed = np.linalg.norm(np.diff(found, axis=0), axis=1)
        speed /= np.linalg.norm(np.diff(true, axis=0), axis=1)
        steps.append(np.abs(np.diff(np.log(speed))).max())
    assert steps[1] < 0.6 * steps[0], steps
