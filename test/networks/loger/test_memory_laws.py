"""What the memory of LoGeR must obey, whatever the weights."""

import gc
from dataclasses import replace

import pytest
import torch
from small_loger import SMALL, random_frames, random_loger

from scal3r_ros.mapping.chunking import partition
from scal3r_ros.networks.loger.architecture import TINY
from scal3r_ros.networks.loger.merge import by_block, merged, rigid
from scal3r_ros.networks.loger.network import Prediction
from scal3r_ros.networks.loger.state import WindowState, state_of

WINDOW, OVERLAP = 4, 1


@pytest.fixture(scope="module")
def network():
    return random_loger()


def run(network, images, state=None, remember=True):
    with torch.inference_mode():
        return network(images[None], WINDOW, OVERLAP, state, remember)


def stream(network, images, reset_every=0, state=None):
    """Predictions and states of all windows."""
    state = state or WindowState()
    found = []
    for span in partition(len(images), WINDOW, OVERLAP):
        out, state = run(network, images[span.start : span.stop], state.before_next(reset_every))
        found.append((out, state))
    return found


def same(a: Prediction, b: Prediction) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values()))


def test_a_window_does_not_see_its_own_update(network):
    images = random_frames(WINDOW)
    with_memory, after = run(network, images)
    without, untouched = run(network, images, remember=False)
    assert same(with_memory, without)
    assert not untouched.weights and not untouched.cache and untouched.windows == 0
    twice = random_loger()
    twice.ttt_layers[0].lr_fc.bias += 3.0  # steps twenty times as large
    assert same(run(twice, images)[0], with_memory)
    following = random_frames(WINDOW, seed=2)
    assert not same(
        run(twice, following, run(twice, images)[1])[0], run(network, following, after)[0]
    )


def test_both_memories_reach_the_next_window(network):
    images, following = random_frames(WINDOW), random_frames(WINDOW, seed=2)
    state = run(network, images)[1]
    full = run(network, following, state)[0]
    for part in (replace(state, weights={}), replace(state, cache={}), WindowState()):
        assert not same(run(network, following, part)[0], full)


def test_a_window_leaves_the_given_state_untouched(network):
    state = run(network, random_frames(WINDOW))[1]
    before = {name: value.clone() for name, value in state.tensors().items()}
    run(network, random_frames(WINDOW, seed=2), state)
    run(network, random_frames(3, seed=3), state, remember=False)
    for name, value in state.tensors().items():
        assert torch.equal(value, before[name]), name


def test_cached_attention_equals_attention_over_both_windows(network):
    """Keys and values kept from a window are those that its tokens give again."""
    block, a = network.swa_layers[0], SMALL
    window = network.begin(torch.zeros(1, 4, 6, a.embed_dim), (2, 3), 4, 1, WindowState())
    rotary = window.rotary(a.embed_dim // a.decoder_num_heads)
    length = window.tokens[0, ..., 0].numel()
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(2, 1, length, a.embed_dim, generator=generator).unbind()
    with torch.inference_mode():
        _, cache = block.attend(first, rotary, None)
        cached, _ = block.attend(second, rotary, cache)
        both = torch.cat((first, second), dim=1)
        joint = block.attn.attend(*block.attn.heads(block.norm1(both), rotary))[:, length:]
        expected = second + block.ls1(joint)
        expected = expected + block.ls2(block.mlp(block.norm2(expected)))
    torch.testing.assert_close(cached, expected, rtol=1e-5, atol=1e-5)


def test_the_cache_holds_one_window_and_the_weights_keep_their_norms(network):
    states = [state for _, state in stream(network, random_frames(10))]
    tokens = SMALL.special_tokens + 6
    lengths = [state.cache[0].keys.shape[2] // tokens for state in states]
    assert lengths == [4, 4, 4]
    for layer, memory in enumerate(network.ttt_layers):
        for now, initial in zip(states[-1].weights[layer], memory.initial()):
            torch.testing.assert_close(now.norm(dim=1), initial.norm(dim=1), rtol=1e-4, atol=0)
            assert not torch.allclose(now, initial, atol=1e-3)


def test_reset_forgets_fast_weights_and_keeps_the_cache(network):
    images = random_frames(13)
    kept, reset = stream(network, images), stream(network, images, reset_every=2)
    for m in (0, 1):
        assert same(kept[m][0], reset[m][0])
    assert not same(kept[2][0], reset[2][0])
    spans = partition(len(images), WINDOW, OVERLAP)
    cache_only = replace(reset[1][1], weights={})
    third = images[spans[2].start : spans[2].stop]
    assert same(run(network, third, cache_only)[0], reset[2][0])
    assert not same(run(network, third)[0], reset[2][0])
    assert reset[0][1].before_next(1).weights == {}
    assert WindowState().before_next(1).windows == 0


def test_a_saved_state_continues_bit_for_bit(network):
    images = random_frames(10)
    whole = stream(network, images)
    arrays = {k: v.numpy().copy() for k, v in whole[0][1].tensors().items()}
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
    restored = state_of(tensors, network.state_shapes())
    spans = partition(len(images), WINDOW, OVERLAP)
    again = run(network, images[spans[1].start : spans[1].stop], restored)
    assert same(again[0], whole[1][0])


def test_unfit_states_are_refused(network):
    good = run(network, random_frames(WINDOW))[1].tensors()
    shapes = network.state_shapes()
    cases = {
        "count of windows": {k: v for k, v in good.items() if k != "windows"},
        "lacks weights.layer1.w2": {k: v for k, v in good.items() if k != "weights.layer1.w2"},
        "another network": good | {"weights.layer9.w0": good["weights.layer0.w0"]},
        "expected": good | {"cache.layer0.keys": good["cache.layer0.keys"][:, :1]},
        "not finite": good | {"weights.layer0.w0": good["weights.layer0.w0"] * torch.nan},
    }
    for text, tensors in cases.items():
        with pytest.raises(ValueError, match=text):
            state_of(tensors, shapes)


def test_memory_does_not_grow_with_windows(network):
    images, state = random_frames(WINDOW), WindowState()
    sizes = []
    for number in range(12):
        state = run(network, images, state)[1]
        if number in (2, 11):
            gc.collect()
            sizes.append((state.nbytes, sum(type(x) is torch.Tensor for x in gc.get_objects())))
    assert sizes[0] == sizes[1]


def test_independent_scenes_of_a_batch_do_not_mix(network):
    first, second = random_frames(WINDOW), random_frames(WINDOW, seed=2)
    following = torch.stack((second, first))
    with torch.inference_mode():
        _, both = network(torch.stack((first, second)), WINDOW, OVERLAP)
        out, _ = network(following, WINDOW, OVERLAP, both)
    alone = run(network, second, run(network, first)[1])[0]
    for found, expected in zip(vars(out).values(), vars(alone).values()):
        torch.testing.assert_close(found[:1], expected, rtol=1e-4, atol=1e-4)


def test_slices_and_batches_change_rounding_only():
    images = random_frames(WINDOW)
    whole = random_loger(token_slice=None, head_batch=8, encoder_batch=16)
    parts = random_loger(token_slice=7, head_batch=1, encoder_batch=1)
    (expected, after), (found, cut) = run(whole, images), run(parts, images)
    for a, b in zip(vars(found).values(), vars(expected).values()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for layer, weights in after.weights.items():
        for a, b in zip(cut.weights[layer], weights):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_bfloat16_blocks_stay_near_and_leave_float32_where_it_matters():
    images, following = random_frames(WINDOW), random_frames(WINDOW, seed=2)
    exact, rounded = random_loger(), random_loger(blocks="bfloat16")
    expected = run(exact, following, run(exact, images)[1])[0]
    state = run(rounded, images)[1]
    found = run(rounded, following, state)[0]
    for a, b in zip(vars(found).values(), vars(expected).values()):
        assert a.dtype == torch.float32
        assert 0 < torch.linalg.norm(a - b) <= 0.1 * torch.linalg.norm(b)
    assert all(w.dtype == torch.float32 for triple in state.weights.values() for w in triple)
    assert state.cache[0].keys.dtype == torch.bfloat16
    arrays = {k: v.float() for k, v in state.tensors().items()}
    again = run(rounded, following, state_of(arrays, rounded.state_shapes()))[0]
    assert same(again, found), "widened to float32 for a save, nothing is lost"


def test_the_tiny_preset_computes_and_remembers():
    """Another encoder, which brings no projection and no normalisation of ours."""
    network = random_loger(TINY)
    images = torch.randint(0, 256, (2, 3, 3, 48, 64), dtype=torch.uint8)
    with torch.inference_mode():
        _, state = network(images[:1], WINDOW, OVERLAP)
        out, _ = network(images[1:], WINDOW, OVERLAP, state)
        alone, _ = network(images[1:], WINDOW, OVERLAP)
    assert out.local_points.shape == (1, 3, 48, 64, 3)
    assert torch.isfinite(out.local_points).all() and not same(out, alone)


def test_autograd_reaches_the_memory_through_the_next_window():
    network = random_loger().requires_grad_(True)
    first, second = random_frames(3)[None], random_frames(3, seed=2)[None]
    _, state = network(first, WINDOW, OVERLAP)
    out, _ = network(second, WINDOW, OVERLAP, state)
    out.local_points.mean().backward()
    rates = network.ttt_layers[0].lr_fc.weight.grad
    assert rates is not None and rates.abs().max() > 0


def test_rigid_chain_undoes_any_motion_of_windows():
    """Windows of one trajectory, each moved by a motion of its own."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.stack([random_pose(generator) for _ in range(13)])
    spans = partition(13, WINDOW, OVERLAP)
    points = torch.rand(13, 2, 3, 3, generator=generator)
    windows, blocks = [], []
    for m, span in enumerate(spans):
        frames = slice(span.start, span.stop)
        motion = random_pose(generator) if m else torch.eye(4)
        shared = blocks[-1] if m % 2 else motion
        blocks.append(shared)
        rest = points[frames], points[frames, ..., 0]
        windows.append(Prediction(motion @ truth[frames], *rest))
    found = merged(windows, spans, rigid(windows, spans))
    torch.testing.assert_close(found.poses, truth, rtol=1e-5, atol=1e-5)
    by_two = [
        replace(window, poses=block @ truth[span.start : span.stop])
        for window, block, span in zip(windows, blocks, spans)
    ]
    found = merged(by_two, spans, by_block(by_two, spans, reset_every=2))
    torch.testing.assert_close(found.poses, truth, rtol=1e-5, atol=1e-5)


def random_pose(generator):
    pose = torch.eye(4)
    q = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    pose[:3, :3] = q * torch.linalg.det(q)
    pose[:3, 3] = torch.randn(3, generator=generator)
    return pose
