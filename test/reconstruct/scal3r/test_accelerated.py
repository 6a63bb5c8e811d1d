"""Fewer keys through the reconstructor: configured, streamed, and again from stored tokens."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from network_chain import assert_same, chain  # noqa: E402

from scal3r_ros.config import MemoryConfig, ModelConfig  # noqa: E402
from scal3r_ros.networks.scal3r.key_selection import KeySelection  # noqa: E402
from scal3r_ros.reconstruct.scal3r.setup import open_scal3r  # noqa: E402


def accelerated(folder, mode, scheme="frames"):
    model = ModelConfig(
        checkpoint=str(folder), device="cpu", acceleration=scheme, key_frames=2, key_grid=2
    )
    return open_scal3r(model, MemoryConfig(mode=mode))


def test_all_chunks_again_equal_batch_with_fewer_keys_too(folder):
    engine, batch = accelerated(folder, "finalize"), accelerated(folder, "batch")
    assert engine.network.agg_regator.keys == KeySelection("frames", 2, 2)
    dense = accelerated(folder, "stream", "none")
    apart = []
    for chunk in chain():
        found, whole = engine.reconstruct(chunk), dense.reconstruct(chunk)
        apart.append(np.abs(found.depth - whole.depth).max())
    assert min(apart) > 1e-6
    for again, want in zip(engine.finalize(), batch.reconstruct_round(chain()), strict=True):
        assert_same(again, want)
