"""The memory as tensors: continues bit for bit, and wrong ones change nothing."""

from dataclasses import replace

import pytest
import torch
from small_network import SMALL, random_network

from scal3r_ros.networks.scal3r.memory import ContextMemory


def stream(network, chunks, memory):
    predictions = []
    for images in chunks:
        round_ = memory.round(1)
        predictions += network(images, memory=round_)
        round_.commit()
    return predictions


def saved(memory):
    return {name: value.clone() for name, value in memory.state_dict().items()}


@pytest.mark.parametrize("options", [{}, {"decay": 0.9}, {"window": 4}])
def test_restored_memory_continues_bit_for_bit(network, chunks, options):
    through = ContextMemory(**options)
    expected = stream(network, chunks, through)[2:]
    first, second = ContextMemory(**options), ContextMemory(**options)
    stream(network, chunks[:2], first)
    state = saved(first)
    stream(network, chunks[:1], second)  # something to be replaced
    second.load_state_dict(state, network.memory_shapes())
    found = stream(network, chunks[2:], second)
    for a, b in zip(found, expected):
        assert torch.equal(a.depth, b.depth) and torch.equal(a.cameras, b.cameras)
    assert second.chunks == through.chunks == len(chunks)
    assert_equal_states(second.state_dict(), through.state_dict())


def test_empty_memory_survives(network):
    memory = ContextMemory()
    memory.load_state_dict(saved(ContextMemory()), network.memory_shapes())
    assert memory.chunks == 0 and memory.total(SMALL.ttt_layers[0]) is None


def assert_equal_states(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


NAME = f"bucket0.layer{SMALL.ttt_layers[0]}.w0"
NAN = torch.full((1, SMALL.embed_dim, 4 * SMALL.embed_dim), torch.nan)
DAMAGES = {
    "lacks bucket0": {NAME: None},
    "chunk counts are missing": {"chunks": None},
    "unexpected": {"spare": torch.zeros(1)},
    "expected .* float32": {NAME: torch.zeros(1, 2, 3)},
    "not finite": {NAME: NAN},
    "2 buckets": {"bucket_chunks": torch.tensor([2, 0])},
}


@pytest.mark.parametrize("text", DAMAGES)
def test_wrong_state_is_refused_and_changes_nothing(network, chunks, text):
    other, memory = ContextMemory(), ContextMemory()
    stream(network, chunks[:2], other)
    stream(network, chunks[2:3], memory)
    before = saved(memory)
    damaged = {k: v for k, v in {**saved(other), **DAMAGES[text]}.items() if v is not None}
    with pytest.raises(ValueError, match=text):
        memory.load_state_dict(damaged, network.memory_shapes())
    assert_equal_states(memory.state_dict(), before)


def test_memory_of_another_size_of_network_is_refused(network, chunks):
    memory = ContextMemory()
    stream(network, chunks[:1], memory)
    other = random_network(replace(SMALL, ttt_layers=(1, 3)))
    with pytest.raises(ValueError, match="another network"):
        ContextMemory().load_state_dict(saved(memory), other.memory_shapes())
