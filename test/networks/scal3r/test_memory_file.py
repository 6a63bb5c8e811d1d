"""The memory on disk: continues bit for bit, and a wrong file changes nothing."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_network import SMALL, random_network

from scal3r_ros.networks.scal3r.memory import ContextMemory
from scal3r_ros.networks.scal3r.memory_file import load_memory, save_memory

FINGERPRINT = "ab" * 32


def stream(network, chunks, memory):
    predictions = []
    for images in chunks:
        round_ = memory.round(1)
        predictions += network(images, memory=round_)
        round_.commit()
    return predictions


@pytest.mark.parametrize("options", [{}, {"decay": 0.9}, {"window": 4}])
def test_saved_and_restored_memory_continues_bit_for_bit(network, chunks, tmp_path, options):
    through = ContextMemory(**options)
    expected = stream(network, chunks, through)[2:]
    first, second = ContextMemory(**options), ContextMemory(**options)
    stream(network, chunks[:2], first)
    save_memory(tmp_path / "memory", first, FINGERPRINT)
    stream(network, chunks[:1], second)  # something to be replaced
    load_memory(tmp_path / "memory", second, FINGERPRINT, network.memory_shapes())
    found = stream(network, chunks[2:], second)
    for a, b in zip(found, expected):
        assert torch.equal(a.depth, b.depth) and torch.equal(a.cameras, b.cameras)
    assert second.chunks == through.chunks == len(chunks)
    assert_equal_states(second.state_dict(), through.state_dict())


def test_empty_memory_survives(network, tmp_path):
    save_memory(tmp_path / "memory", ContextMemory(), FINGERPRINT)
    memory = ContextMemory()
    load_memory(tmp_path / "memory", memory, FINGERPRINT, network.memory_shapes())
    assert memory.chunks == 0 and memory.total(SMALL.ttt_layers[0]) is None


def assert_equal_states(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def rewritten(path, metadata=None, **tensors):
    """The file with some tensors replaced (None removes) and other metadata."""
    content = {k: v for k, v in {**load_file(path), **tensors}.items() if v is not None}
    known = {"format": "scal3r-memory", "version": "1", "fingerprint": FINGERPRINT}
    save_file(content, path, {**known, **(metadata or {})})


NAME = f"bucket0.layer{SMALL.ttt_layers[0]}.w0"
DAMAGES = {
    "expected a scal3r-memory file of version 1": lambda p: rewritten(p, {"version": "2"}),
    "found other": lambda p: rewritten(p, {"format": "other"}),
    "belongs to weights cdcdcdcdcdcd": lambda p: rewritten(p, {"fingerprint": "cd" * 32}),
    "lacks bucket0": lambda p: rewritten(p, **{NAME: None}),
    "chunk counts are missing": lambda p: rewritten(p, chunks=None),
    "unexpected": lambda p: rewritten(p, spare=torch.zeros(1)),
    "expected .* float32": lambda p: rewritten(p, **{NAME: torch.zeros(1, 2, 3)}),
    "not finite": lambda p: rewritten(
        p, **{NAME: torch.full((1, SMALL.embed_dim, 4 * SMALL.embed_dim), torch.nan)}
    ),
    "2 buckets": lambda p: rewritten(p, bucket_chunks=torch.tensor([2, 0])),
    "no readable memory file": lambda p: p.write_bytes(p.read_bytes()[:-10]),
    "readable memory": lambda p: p.write_bytes(b""),
    "memory file .*No such file|No such file": lambda p: p.unlink(),
}


@pytest.mark.parametrize("text", DAMAGES)
def test_wrong_file_is_refused_and_changes_nothing(network, chunks, tmp_path, text):
    path, saved, memory = tmp_path / "memory", ContextMemory(), ContextMemory()
    stream(network, chunks[:2], saved)
    save_memory(path, saved, FINGERPRINT)
    stream(network, chunks[2:3], memory)
    before = {k: v.clone() for k, v in memory.state_dict().items()}
    DAMAGES[text](path)
    with pytest.raises(ValueError, match=text):
        load_memory(path, memory, FINGERPRINT, network.memory_shapes())
    assert_equal_states(memory.state_dict(), before)


def test_memory_of_another_size_of_network_is_refused(network, chunks, tmp_path):
    from dataclasses import replace

    memory = ContextMemory()
    stream(network, chunks[:1], memory)
    save_memory(tmp_path / "memory", memory, FINGERPRINT)
    other = random_network(replace(SMALL, ttt_layers=(1, 3)))
    with pytest.raises(ValueError, match="another network"):
        load_memory(tmp_path / "memory", ContextMemory(), FINGERPRINT, other.memory_shapes())


def test_a_failed_save_leaves_the_older_file(network, chunks, tmp_path):
    path, memory = tmp_path / "memory", ContextMemory()
    save_memory(path, memory, FINGERPRINT)
    older = path.read_bytes()
    memory.state_dict = lambda: {"chunks": "not a tensor"}
    with pytest.raises(AttributeError):
        save_memory(path, memory, FINGERPRINT)
    assert path.read_bytes() == older
    assert [p.name for p in tmp_path.iterdir()] == ["memory"]
