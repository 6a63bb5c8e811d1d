"""Everything once more with the whole memory: equal to batch, in memory, on disk, in between."""

import errno

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from network_chain import SIZES, assert_same, chain, frames, reconstructor  # noqa: E402

from scal3r_ros import files as atomic  # noqa: E402
from scal3r_ros.config import MemoryConfig, ModelConfig  # noqa: E402
from scal3r_ros.files import SaveFailed  # noqa: E402
from scal3r_ros.reconstruct.scal3r.setup import open_scal3r  # noqa: E402
from scal3r_ros.reconstruct.scal3r.tensor_store import TensorStore  # noqa: E402
from scal3r_ros.records import Chunk  # noqa: E402


@pytest.fixture(scope="module")
def items():
    """A chain with two loop chunks in it."""
    first, second, third = chain()
    loops = [Chunk(i, 0, frames(3) + frames(3, 6), kind="loop") for i in (7, 8)]
    return [first, loops[0], second, third, loops[1]]


def in_limited_memory(folder, work, megabytes):
    memory = MemoryConfig(mode="finalize", host_megabytes=megabytes)
    return open_scal3r(ModelConfig(checkpoint=str(folder), device="cpu"), memory, work)


def test_loop_chunks_that_do_not_contribute_leave_no_trace(folder):
    chunks = chain()
    loop = Chunk(7, 0, frames(3) + frames(3, 6), kind="loop")
    plain, disturbed = (reconstructor(folder, mode="finalize") for _ in range(2))
    for chunk in chunks:
        want = plain.reconstruct(chunk)
        disturbed.reconstruct(loop, contribute=False)
        assert_same(disturbed.reconstruct(chunk), want)
    whole = list(disturbed.finalize())
    assert [p.chunk_index for p in whole] == [7, 0, 7, 1, 7, 2]
    for found, want in zip(whole[1::2], plain.finalize()):
        assert_same(found, want, 1e-5)
    assert_same(whole[0], whole[2])


def test_contributing_loop_chunks_equal_batch(folder):
    items = [*chain(), Chunk(7, 0, frames(3) + frames(3, 6), kind="loop")]
    expected = reconstructor(folder, mode="batch").reconstruct_round(items)
    last = reconstructor(folder, mode="finalize")
    for chunk in items:
        last.reconstruct(chunk)
    for found, want in zip(last.finalize(), expected, strict=True):
        assert_same(found, want, 1e-5)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_chunks_on_disk_change_no_bit(folder, items, tmp_path, share):
    whole = in_limited_memory(folder, tmp_path, 1000.0)
    for chunk in items:
        whole.reconstruct(chunk, contribute=chunk.index != 7)
    bytes_needed = whole._parked.nbytes
    small = in_limited_memory(folder, tmp_path / "work", share * bytes_needed / 1e6)
    for chunk in items:
        small.reconstruct(chunk, contribute=chunk.index != 7)
        assert small._parked.nbytes <= share * bytes_needed
    assert small._parked.spilled >= 5 and whole._parked.spilled == 0
    assert (share > 0) == (small._parked.nbytes > 0)
    for found, want in zip(small.finalize(), whole.finalize(), strict=True):
        assert small._parked.nbytes <= share * bytes_needed
        assert_same(found, want)
        np.testing.assert_array_equal(found.rgb, want.rgb)
        np.testing.assert_array_equal(found.descriptors, want.descriptors)
    for name, value in small.state().arrays.items():
        np.testing.assert_array_equal(value, whole.state().arrays[name])


def test_a_stream_goes_on_after_it_was_finalized(folder, tmp_path):
    chunks = chain()
    expected = reconstructor(folder, mode="batch").reconstruct_round(chunks)
    engine = in_limited_memory(folder, tmp_path, 0.0)
    engine.reconstruct(chunks[0])
    assert len(list(engine.finalize())) == 1
    for chunk in chunks[1:]:
        engine.reconstruct(chunk)
    for found, want in zip(engine.finalize(), expected, strict=True):
        assert_same(found, want, 1e-5)


def test_nothing_is_left_on_disk(folder, tmp_path):
    engine = in_limited_memory(folder, tmp_path, 0.0)
    engine.reconstruct(chain()[0])
    assert len(list(tmp_path.rglob("*.pt"))) == 2  # tokens, images
    list(engine.finalize())
    assert len(list(tmp_path.rglob("*.pt"))) == 2  # what finalize moved on is gone again
    engine.reset()
    assert not list(tmp_path.rglob("*.pt"))


def test_a_failed_round_is_not_finalized(folder, tmp_path):
    engine = in_limited_memory(folder, tmp_path, 0.0)
    engine.reconstruct(chain()[0])

    def broken(layer, gradients):
        raise ConnectionError("peer lost")

    with pytest.raises(ConnectionError):
        engine.stage_round([chain()[1]], sync=broken)
    assert [outcome.chunk_index for outcome in engine.finalize()] == [0]
    assert len(list(tmp_path.rglob("*.pt"))) == 2
    assert len(SIZES.ttt_layers) == 2


def test_a_store_keeps_what_fits_and_returns_every_bit(tmp_path):
    store = TensorStore(1000, tmp_path)
    groups = {
        "first": {"a": torch.arange(100, dtype=torch.float32)},
        "second": {"b": torch.randn(200).to(torch.bfloat16), "c": torch.zeros(3, 0)},
        "view": {"d": torch.randn(50, 50)[3:5]},
    }
    for name, tensors in groups.items():
        store.put(name, tensors)
    assert store.nbytes == 800 + 0 and store.spilled == 1
    assert next(tmp_path.rglob("*.pt")).stat().st_size < 3000  # not the tensor behind the view
    store.put("first", groups["first"] | {"more": torch.ones(100)})
    assert store.nbytes == 400 + 0 and store.spilled == 2
    for name in ("second", "view"):
        found = store.get(name)
        assert found.keys() == groups[name].keys()
        assert all(
            torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in groups[name].items()
        )
    for name in groups:
        store.drop(name)
    assert not list(tmp_path.iterdir()) and store.nbytes == 0


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = TensorStore(0, tmp_path)
    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(SaveFailed, match="the disk is full"):
        store.put("group", {"a": torch.ones(3)})
