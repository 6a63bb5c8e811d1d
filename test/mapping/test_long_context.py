"""Windows over many chunks: even frames, consistent edges, views that hang together."""

from dataclasses import replace

import numpy as np
import pytest
from oracle import OracleReconstructor, drive

from scal3r_ros.mapping.alignment import Alignment
from scal3r_ros.mapping.long_context import (
    LEAST_APART,
    ContextWindow,
    context_edges,
    linked_views,
    pick_window,
)
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import Chunk, Frame

BLANK = np.zeros((2, 2, 3), np.uint8)
CHUNKS = tuple(range(8))
SHARED = {chunk: range(3 * chunk, 3 * chunk + 3) for chunk in CHUNKS}
LINKED = np.ones(23)


def window() -> ContextWindow:
    return ContextWindow(CHUNKS, tuple(range(24)), tuple(i // 3 for i in range(24)))


def places() -> dict[int, Sim3]:
    random = np.random.default_rng(0)
    return {chunk: Sim3.exp(0.3 * random.standard_normal(7)) for chunk in CHUNKS}


def fits(S_map: dict[int, Sim3], S_map_window: Sim3) -> dict[int, Alignment]:
    sigma = np.array([0.02, 0.01, 0.03])
    return {
        chunk: Alignment(S.inverse() @ S_map_window, True, "depth", sigma=sigma)
        for chunk, S in S_map.items()
    }


def test_frames_are_picked_evenly_and_each_from_a_chunk_that_has_it():
    frames = {4: range(100, 160), 5: range(130, 190), 6: range(160, 220)}
    found = pick_window(frames, 25)
    assert found.chunks == (4, 5, 6) and len(found.frame_ids) == 25
    assert (found.frame_ids[0], found.frame_ids[-1]) == (100, 219)
    assert set(np.diff(found.frame_ids)) <= {4, 5, 6}
    assert all(i in frames[owner] for i, owner in zip(found.frame_ids, found.owners))
    assert pick_window({0: range(5)}, 24).frame_ids == tuple(range(5))


def test_exact_fits_make_edges_that_are_exact():
    S_map = places()
    edges = context_edges(window(), LINKED, fits(S_map, Sim3.exp(np.full(7, 0.4))), SHARED)
    assert {(e.a, e.b) for e in edges} == {
        (a, b) for a in CHUNKS for b in CHUNKS if b - a >= LEAST_APART
    }
    for edge in edges:
        true = S_map[edge.a].inverse() @ S_map[edge.b]
        np.testing.assert_allclose(edge.S_a_b.matrix(), true.matrix(), atol=1e-9)


def test_edges_of_one_window_count_no_more_than_its_fits():
    """Fifteen edges of eight fits are believed as seven independent ones."""
    S_map = {chunk: Sim3.identity() for chunk in CHUNKS}
    many = context_edges(window(), LINKED, fits(S_map, Sim3.identity()), SHARED)
    few = {chunk: fit for chunk, fit in fits(S_map, Sim3.identity()).items() if chunk in (0, 7)}
    (one,) = context_edges(window(), LINKED, few, SHARED)
    weight = sum((one.sigma / edge.sigma) ** 2 for edge in many)
    np.testing.assert_allclose(weight, 7.0)


def test_no_edge_leads_across_views_that_see_nothing_in_common():
    links = LINKED.copy()
    links[14] = 0.02  # between the chunks 4 and 5
    S_map = places()
    edges = context_edges(window(), links, fits(S_map, Sim3.identity()), SHARED)
    assert {(e.a, e.b) for e in edges} == {(0, 3), (0, 4), (1, 4)}


def test_views_are_linked_where_they_see_the_same_surface():
    city = drive(frames=200, length=164.0, width=64, height=24, route="EENN")
    ids = tuple(range(0, 96, 8))
    chunk = Chunk(0, 0, tuple(Frame(i, city.stamp_ns(i), BLANK) for i in ids), kind="context")
    seen = OracleReconstructor(city).reconstruct(chunk)
    links = linked_views(seen)
    assert len(links) == len(ids) - 1 and links[:6].min() > 0.2
    turned = seen.T_chunk_camera.copy()
    turned[4] = turned[4] @ np.diag([-1.0, 1.0, -1.0, 1.0])  # looks back
    assert linked_views(replace(seen, T_chunk_camera=turned))[[3, 4]].max() == pytest.approx(0.0)
