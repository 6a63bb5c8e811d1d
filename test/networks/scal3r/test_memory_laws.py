"""What must hold between the ways to run the memory."""

import threading
from dataclasses import replace

import pytest
import torch
from golden_files import NotedMemory
from small_network import SMALL, random_images, random_network

from scal3r_ros.networks.fast_weights import FastWeights
from scal3r_ros.networks.scal3r.memory import (
    CausalMemory,
    ContextMemory,
    LocalMemory,
    NoMemory,
)
from scal3r_ros.networks.scal3r.schedule import add_memory, advance_all, run_round


def begin(network, images):
    tokens = network.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    return network.begin(tokens, network.grid(images), points=True)


def stream(network, chunks, memory):
    """Chunks one after the other through a lasting memory."""
    predictions = []
    for images in chunks:
        round_ = memory.round(1)
        predictions += network(images, points=True, memory=round_)
        round_.commit()
    return predictions


def assert_close(found, expected, tolerance=1e-5):
    for name in ("cameras", "depth", "depth_confidence", "points", "points_confidence"):
        a, b = getattr(found, name), getattr(expected, name)
        assert (a - b).abs().max() <= tolerance * b.abs().max(), name


def assert_different(found, expected):
    assert (found.depth - expected.depth).abs().max() > 1e-3 * expected.depth.abs().max()


def totals(memory):
    return {layer: memory.total(layer) for layer in SMALL.ttt_layers}


def assert_same_sums(found, expected, tolerance=0.0):
    for layer, sums in totals(expected).items():
        for a, b in zip(found.total(layer), sums):
            assert (a - b).abs().max() <= tolerance * b.abs().max()


def test_one_chunk_streamed_equals_batch(network, chunks):
    (streamed,) = stream(network, chunks[:1], ContextMemory())
    (batch,) = network(chunks[0], points=True)
    (local,) = network(chunks[0], points=True, memory=LocalMemory())
    assert_close(streamed, batch, 0.0)
    assert_close(streamed, local, 0.0)


def test_a_stream_in_one_call_equals_chunk_by_chunk(network, chunks):
    streamed = stream(network, chunks, ContextMemory())
    for found, expected in zip(network(chunks, points=True, memory=CausalMemory()), streamed):
        assert_close(found, expected)


def test_a_stream_in_one_call_passes_derivatives_through_every_update():
    """The last of five chunks tells the first's encoder what to write."""
    network = random_network().requires_grad_(True)
    chunks = [random_images(1, 2, seed=i).float() / 255 for i in range(5)]
    chunks[0].requires_grad_(True)
    network(chunks, memory=CausalMemory())[-1].depth.sum().backward()
    assert chunks[0].grad is not None and bool(chunks[0].grad.abs().max() > 0)


def test_streaming_is_causal_and_ends_as_batch_at_the_first_memory_layer(network, chunks):
    noted = NotedMemory("float32", len(chunks))
    batch = network(chunks, points=True, memory=noted)
    memory = ContextMemory()
    streamed = stream(network, chunks[:-1], memory)
    last = memory.round(1)
    first = network.architecture.ttt_layers[0]
    states = [begin(network, chunks[-1])]
    advance_all(network, states, first)
    unit = network.agg_regator.memory_unit(first)
    g = unit.gradient(states[0].tokens, states[0].memory_rotary, None)
    for found, expected in zip(last.adapt(first, unit, [g]), noted.weights[first]):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert_different(streamed[0], batch[0])
    assert_close(streamed[1], stream(network, chunks[:2], ContextMemory())[1], 0.0)


def test_finishing_from_parked_states_equals_batch(network, chunks):
    batch = network(chunks, points=True)
    first = network.architecture.ttt_layers[0]
    states = [begin(network, images) for images in chunks]
    advance_all(network, states, first)
    parked = [state.copy() for state in states]
    memory = ContextMemory()
    for state in states:
        round_ = memory.round(1)
        run_round(network, [state], round_)
        round_.commit()
    run_round(network, parked, ContextMemory().round(len(parked)))
    for state, expected in zip(parked, batch):
        assert_close(network.decode(state), expected, 1e-6)


def test_round_shared_by_two_workers_equals_batch(network, chunks):
    """Two threads with one chunk each and a third without any meet at every memory layer."""
    batch = network(chunks[:2], points=True)
    barrier, shares, results, memories = threading.Barrier(3, timeout=60), {}, {}, {}

    def work(rank, own):
        def sync(layer, g):
            shares[rank] = g
            barrier.wait()
            total = sum((shares[r] for r in (1, 2)), shares[0])
            barrier.wait()
            return total

        memories[rank] = ContextMemory(sync=sync)
        round_ = memories[rank].round(len(own), places=[rank] * len(own), size=2)
        states = [begin(network, images) for images in own]
        run_round(network, states, round_)
        round_.commit()
        results[rank] = [network.decode(state) for state in states]

    threads = [
        threading.Thread(target=work, args=(rank, own))
        for rank, own in enumerate((chunks[:1], chunks[1:2], []))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in (0, 1):
        assert_close(results[rank][0], batch[rank])
        assert_same_sums(memories[rank], memories[2])
    assert memories[2].chunks == 2


@pytest.mark.parametrize("token_slice", [1, 5, 6, 1000, None])
def test_token_slices_change_nothing(network, chunks, token_slice):
    expected = stream(network, chunks[:2], ContextMemory())
    network.numerics = replace(network.numerics, token_slice=token_slice)
    for found, whole in zip(stream(network, chunks[:2], ContextMemory()), expected):
        assert_close(found, whole, 2e-5)


def test_batch_sizes_of_encoder_and_heads_change_nothing(network, chunks):
    (expected,) = network(chunks[3], points=True)
    network.numerics = replace(network.numerics, encoder_batch=2, head_batch=2)
    (found,) = network(chunks[3], points=True)
    assert_close(found, expected)


@pytest.mark.parametrize("heads", [1, 2])
def test_scenes_of_a_batch_do_not_see_each_other(heads):
    network = random_network(replace(SMALL, ttt_num_heads=heads))
    images = [random_images(3, 2, seed=i) for i in range(2)]
    together = network(images)
    for scene in range(3):
        alone = network([x[scene : scene + 1] for x in images])
        for a, b in zip(together, alone):
            torch.testing.assert_close(a.depth[scene], b.depth[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(a.camera[scene], b.camera[0], rtol=1e-4, atol=1e-5)


def test_training_gradients_pass_through_the_memory(chunks):
    network = random_network().requires_grad_()
    predictions = network(chunks[:2])
    sum(p.depth.log().mean() + p.camera.mean() for p in predictions).backward()
    for layer in SMALL.ttt_layers[:-1]:
        unit = network.agg_regator.memory_unit(layer)
        for name, parameter in unit.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_decay_and_window_weigh_chunks_as_defined(network, chunks):
    """Against gradients collected one by one with nothing forgotten."""
    single = []
    for images in chunks * 3:
        memory = ContextMemory()
        stream(network, [images], memory)
        single.append(memory.total(SMALL.ttt_layers[0]))
    decayed, windowed = ContextMemory(decay=0.5), ContextMemory(window=8)
    stream(network, chunks * 3, decayed)
    stream(network, chunks * 3, windowed)
    kept = windowed.total(SMALL.ttt_layers[0])
    count = len(single)
    for n in range(3):
        expected = sum(0.5 ** (count - 1 - i) * g[n] for i, g in enumerate(single))
        found = decayed.total(SMALL.ttt_layers[0])[n]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        expected = sum(g[n] for g in single[-6:])  # three full buckets of two
        torch.testing.assert_close(kept[n], expected, rtol=1e-4, atol=1e-5)
    assert windowed.chunks == decayed.chunks == count


def test_decay_in_a_round_follows_the_places(network, chunks):
    one, split = ContextMemory(decay=0.5), ContextMemory(decay=0.5)
    first = SMALL.ttt_layers[0]
    unit = network.agg_regator.memory_unit(first)
    states = [begin(network, images) for images in chunks[:3]]
    advance_all(network, states, first)
    g = [unit.gradient(s.tokens, s.memory_rotary, None) for s in states]
    for place in range(3):
        round_ = one.round(1)
        round_.adapt(first, unit, [g[place]])
        round_.commit()
    theirs = split.round(2, places=[0, 2], size=3, sync=lambda _, own: own + g[1].scaled(0.5))
    theirs.adapt(first, unit, [g[0], g[2]])
    theirs.commit()
    for a, b in zip(split.total(first), one.total(first)):
        torch.testing.assert_close(a, b)
    assert split.chunks == one.chunks == 3


def test_a_round_leaves_no_trace_unless_committed(network, chunks):
    memory = ContextMemory()
    stream(network, chunks[:2], memory)
    before = {k: v.clone() for k, v in memory.state_dict().items()}
    abandoned = memory.round(1)
    expected = network(chunks[2], points=True, memory=abandoned)
    reader = memory.round(1, contribute=False)
    network(chunks[3], memory=reader)
    reader.commit()
    after = memory.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    again = memory.round(1)
    assert_close(network(chunks[2], points=True, memory=again)[0], expected[0], 0.0)


def test_a_reader_sees_the_memory_and_nothing_of_itself(network, chunks):
    memory = ContextMemory()
    stream(network, chunks[:2], memory)
    (reading,) = network(chunks[2], points=True, memory=memory.round(1, contribute=False))
    (writing,) = network(chunks[2], points=True, memory=memory.round(1))
    (without,) = network(chunks[2], points=True, memory=NoMemory())
    assert_different(reading, writing)
    assert_different(reading, without)


def test_several_layers_by_hand_equal_a_round(network, chunks):
    """The parts of the schedule that other schedules are made of."""
    memory, states = ContextMemory().round(1), [begin(network, chunks[0])]
    for layer in range(SMALL.depth):
        advance_all(network, states, layer)
        if layer in SMALL.ttt_layers:
            add_memory(network, states, layer, memory)
    assert_close(network.decode(states[0]), network(chunks[0], points=True)[0], 0.0)


def test_a_snapshot_during_commits_holds_whole_rounds(network):
    """Every absorbed round adds one to every sum, so a torn snapshot would show two values."""
    memory, torn, done = ContextMemory(), [], threading.Event()
    ones = {
        layer: FastWeights(*(torch.ones_like(w) for w in shapes))
        for layer, shapes in network.memory_shapes().items()
    }

    def watch():
        while not done.is_set():
            state = dict(memory.state_dict())
            counts = {int(state.pop("chunks")), *state.pop("bucket_chunks").tolist()}
            counts |= {float(value.min()) for value in state.values()}
            if len(counts) > 1:
                torn.append(counts)

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(300):
        memory.merge(ones, 1)
    done.set()
    thread.join()
    assert memory.chunks == 300 and not torn
