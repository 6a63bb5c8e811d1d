"""The projection's arithmetic at its limits."""

from dataclasses import replace

import pytest

from scal3r_ros.bench.projection import GPU_LAYOUTS, gradient_bytes, project, ring_share
from scal3r_ros.networks.scal3r.architecture import preset
from scal3r_ros.workers.exchange import ring_bytes

FULL = preset("scal3r")


def test_the_gradients_of_the_published_size_are_201_megabytes():
    assert gradient_bytes(FULL) == 4 * 3 * 1024 * 4096 * 4 == 201_326_592


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
def test_the_share_of_a_ring_is_what_the_sync_counts(workers):
    assert ring_share(workers) * 201_326_592 == ring_bytes(201_326_592, workers)


def test_one_worker_on_fast_links_is_one_gpu():
    layout = replace(GPU_LAYOUTS[0], workers=1, network=1e15)
    found = project(layout, 3.0, FULL, rate=1e15)
    assert found.sync == 0 and found.speedup == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("layout", GPU_LAYOUTS, ids=lambda x: x.name)
def test_slower_links_never_help(layout):
    found, slower = (project(item, 3.0, FULL, rate=1e15) for item in (layout, replace(
        layout, link=layout.link / 2, network=layout.network / 2)))  # fmt: skip
    assert slower.speedup < found.speedup < found.speedup_without_messages < layout.workers
