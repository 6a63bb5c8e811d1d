"""Fewer keys: dense attention where nothing is left out, and the arithmetic that is left."""

from dataclasses import replace

import pytest
import torch
from small_network import SMALL, random_network
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scal3r_ros.bench.network_cost import chunk_cost
from scal3r_ros.networks.fast_weights import _QUINTIC, newton_schulz
from scal3r_ros.networks.layers import Attention, grid_positions, rotary_table
from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.key_selection import (
    KeySelection,
    attend_selected,
    diverse_frames,
)
from scal3r_ros.networks.scal3r.token_merging import merged_attention, partition

GRID, SPECIAL, FRAMES, WIDTH = (4, 6), 5, 6, 32
TOKENS = SPECIAL + GRID[0] * GRID[1]
GRID_LAYER, FRAMES_LAYER = 5, 12
"""Of 24 layers."""


@pytest.fixture(scope="module")
def attention():
    torch.manual_seed(0)
    return Attention(WIDTH, 2, 1e-5).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def rotary():
    positions = grid_positions(GRID, SPECIAL, torch.device("cpu"))
    return rotary_table(positions, WIDTH // 2, 100.0)


@pytest.fixture(scope="module")
def x():
    return torch.randn(1, FRAMES * TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def answers(attention, x, rotary, keys, layer, frames=None):
    chosen = torch.ones(FRAMES, dtype=torch.bool) if frames is None else frames
    return attend_selected(attention, x, rotary, keys, layer, 24, GRID, chosen)


@pytest.mark.parametrize(
    ("keys", "layer"),
    [
        (KeySelection("frames", frames=FRAMES, grid=1), GRID_LAYER),
        (KeySelection("frames", frames=FRAMES), FRAMES_LAYER),
        (KeySelection("grid", grid=1), 12),
        (KeySelection("grid"), 22),
    ],
)
def test_where_no_key_is_left_out_attention_is_dense(attention, x, rotary, keys, layer):
    found = answers(attention, x, rotary, keys, layer)
    torch.testing.assert_close(found, attention(x, rotary), atol=1e-6, rtol=0)


def test_early_layers_look_inside_their_frame(attention, x, rotary):
    found = answers(attention, x, rotary, KeySelection("grid"), 3)
    alone = attention(x[:, TOKENS : 2 * TOKENS], rotary)
    torch.testing.assert_close(found[:, TOKENS : 2 * TOKENS], alone, atol=1e-6, rtol=0)


def test_selected_keys_and_the_mean_of_the_rest_against_an_explicit_softmax(attention, x, rotary):
    keys = KeySelection("grid", grid=2)
    places = keys.seen(12, 24, GRID, SPECIAL, torch.ones(FRAMES, dtype=torch.bool))
    q, k, v = attention.heads(x, rotary)
    rest = torch.ones(k.shape[2], dtype=torch.bool)
    rest[places] = False
    k = torch.cat((k[:, :, places], k[:, :, rest].mean(2, True)), 2)
    v = torch.cat((v[:, :, places], v[:, :, rest].mean(2, True)), 2)
    weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
    expected = attention.proj((weights @ v).transpose(1, 2).flatten(2))
    found = answers(attention, x, rotary, keys, 12)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_special_tokens_and_the_first_frame_are_always_seen():
    keys = KeySelection("grid", grid=3)
    places = keys.seen(12, 24, GRID, SPECIAL, torch.ones(FRAMES, dtype=torch.bool)).tolist()
    assert set(range(TOKENS)) <= set(places)
    assert {f * TOKENS + s for f in range(FRAMES) for s in range(SPECIAL)} <= set(places)
    shifted = [[p % TOKENS for p in places if p // TOKENS == f and p % TOKENS >= SPECIAL]
               for f in (1, 2)]  # fmt: skip
    assert len(shifted[0]) == len(shifted[1]) and shifted[0] != shifted[1]


def test_frames_that_differ_most_are_chosen_whatever_their_order():
    tokens = torch.zeros(FRAMES, 3, 4)
    for frame, axis in enumerate((0, 0, 1, 1, 2, 0)):
        tokens[frame, :, axis] = 1.0
    tokens[3, :, 3] = 0.1
    assert diverse_frames(tokens, 3).nonzero()[:, 0].tolist() in ([0, 2, 4], [0, 3, 4])
    assert diverse_frames(tokens, 99).all() and diverse_frames(tokens, 1).tolist()[0]


def test_permuting_frames_permutes_answers(attention, x, rotary):
    order = torch.tensor([0, 3, 1, 5, 2, 4])
    chosen = torch.tensor([True, False, True, False, True, False])
    keys = KeySelection("frames", frames=3)
    moved = x.unflatten(1, (FRAMES, TOKENS))[:, order].flatten(1, 2)
    found = answers(attention, moved, rotary, keys, FRAMES_LAYER, chosen[order])
    expected = answers(attention, x, rotary, keys, FRAMES_LAYER, chosen)
    expected = expected.unflatten(1, (FRAMES, TOKENS))[:, order].flatten(1, 2)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_merging_nothing_or_equals_is_dense_attention(attention, x, rotary):
    one = x[:, :TOKENS]  # a first frame has destinations only
    found = merged_attention(attention, one, rotary, 1, GRID, SPECIAL)
    torch.testing.assert_close(found, attention(one, rotary), atol=1e-6, rtol=0)
    alike = x[:, :1].expand(-1, FRAMES * TOKENS, -1)
    still = rotary._replace(cos=torch.ones_like(rotary.cos), sin=torch.zeros_like(rotary.sin))
    found = merged_attention(attention, alike, still, FRAMES, GRID, SPECIAL)
    torch.testing.assert_close(found, attention(alike, still), atol=1e-5, rtol=0)


def test_merged_tokens_share_an_answer_in_slices_of_any_size(attention, x, rotary):
    kept, merged = partition(FRAMES, GRID, SPECIAL, torch.device("cpu"))
    assert len(kept) + len(merged) == FRAMES * TOKENS and len(merged) > 60
    found = merged_attention(attention, x, rotary, FRAMES, GRID, SPECIAL)
    again = merged_attention(attention, x, rotary, FRAMES, GRID, SPECIAL, rows=7)
    torch.testing.assert_close(found, again)
    destinations = found[0, kept[kept[:, 1] > 0, 0]]
    apart = (found[0, merged][:, None] - destinations).abs().amax(-1).amin(1)
    assert apart.max() == 0.0


@pytest.mark.parametrize("scheme", ["none", "frames", "grid", "merge"])
def test_counted_operations_are_those_executed(scheme):
    sizes = replace(SMALL, depth=24, intermediate_layers=(0, 1, 2, 23), ttt_layers=(2,))
    network = random_network(sizes)
    keys = KeySelection(scheme, frames=2, grid=2)
    network.agg_regator.keys = keys
    side = 14 * 4
    images = torch.randint(0, 256, (1, 4, 3, side, side), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(images)
    expected = chunk_cost(sizes, 4, 4, (4, 4), keys=keys).total
    assert counter.get_total_flops() == pytest.approx(expected, rel=2e-3)


def test_at_full_size_a_quarter_of_the_frames_makes_a_chunk_2_3_times_cheaper():
    keys, sizes = KeySelection("frames", frames=15), Architecture()
    for grid, factor in (((28, 37), 2.3), ((11, 37), 1.6)):
        whole, less = (chunk_cost(sizes, 60, 30, grid, keys=k).total for k in (None, keys))
        assert whole / less > factor


@pytest.mark.parametrize("shape", [(32, 128), (128, 32), (40, 100)])
def test_newton_schulz_over_the_gram_matrix_is_the_iteration_itself(shape):
    g = torch.randn(2, *shape, generator=torch.Generator().manual_seed(3))
    a, b, c = _QUINTIC
    x = g.double() if shape[0] <= shape[1] else g.double().transpose(1, 2)
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.transpose(1, 2)
        x = a * x + (b * s + c * s @ s) @ x
    x = x if shape[0] <= shape[1] else x.transpose(1, 2)
    torch.testing.assert_close(newton_schulz(g, 5, torch.float32), x.float(), atol=2e-5, rtol=0)
