"""Rotary positions, encoder and architecture."""

from dataclasses import replace

import pytest
import torch
from small_network import SMALL, random_images, random_network

from scal3r_ros.networks.encoder_cache import EncoderCache
from scal3r_ros.networks.layers import grid_positions, rotary_table, rotate
from scal3r_ros.networks.scal3r.architecture import Architecture, Numerics, preset


def test_rotation_keeps_length_and_depends_on_differences_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 16)
    at = [rotary_table(torch.tensor([p]), 16, 100.0) for p in ((1, 2), (3, 7), (4, 4), (6, 9))]
    turned = rotate(q, at[0])
    torch.testing.assert_close(turned.norm(), q.norm())
    near = (rotate(q, at[0]) * rotate(k, at[1])).sum()
    shifted = (rotate(q, at[2]) * rotate(k, at[3])).sum()
    torch.testing.assert_close(near, shifted)
    assert not torch.isclose(near, (q * k).sum(), atol=1e-2)


def test_special_tokens_are_not_rotated_and_frames_share_positions():
    positions = grid_positions((2, 3), 5, torch.device("cpu"))
    assert positions.tolist()[:6] == [[0, 0]] * 5 + [[1, 1]]
    assert positions.tolist()[-1] == [2, 3]
    table = rotary_table(positions, 8, 100.0)
    x = torch.randn(1, 2, 2 * 11, 8)
    turned = rotate(x, table)
    torch.testing.assert_close(turned[:, :, :5], x[:, :, :5])
    alone = rotate(x[:, :, 11:], table)
    torch.testing.assert_close(turned[:, :, 11:], alone)


def test_frames_are_encoded_alone(network):
    images = random_images(5)
    together = network.encode(images)
    for i in range(5):
        torch.testing.assert_close(network.encode(images[i : i + 1])[0], together[i])


def test_cached_encoder_tokens_change_nothing(network):
    frames = {i: random_images(1, seed=i)[0] for i in range(8)}
    cache, encoded = EncoderCache(), []

    def encode(ids):
        encoded.extend(ids)
        return network.encode(torch.stack([frames[i] for i in ids]))

    for ids, keep in (([0, 1, 2, 3], True), ([1, 6, 3], False), ([2, 3, 4, 5], True), ([0], True)):
        found = cache.tokens(ids, encode, keep)
        expected = network.encode(torch.stack([frames[i] for i in ids]))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert encoded == [0, 1, 2, 3, 6, 4, 5, 0]


def test_the_first_frame_is_the_reference():
    """Frames after the first are interchangeable, the first is not."""
    network = random_network()
    images = random_images(1, 4)
    (base,) = network(images)
    (swapped,) = network(images[:, [0, 3, 2, 1]])
    (moved,) = network(images[:, [1, 0, 2, 3]])
    torch.testing.assert_close(swapped.depth[:, 1], base.depth[:, 3], rtol=1e-4, atol=1e-5)
    assert (moved.depth[:, 1] - base.depth[:, 0]).abs().max() > 1e-3


def test_linear_head_without_points_and_without_memory():
    sizes = replace(
        SMALL,
        patch_size=7,
        dense_head="linear",
        points_head=False,
        ttt_layers=(),
        depth=3,
        intermediate_layers=(0, 1, 2, 2),
    )
    network = random_network(sizes)
    assert not any("xyz_decoder" in key or "ttt" in key for key in network.state_dict())
    (prediction,) = network(random_images(2, 3))
    assert prediction.depth.shape == (2, 3, 28, 42)
    assert prediction.points is None
    with pytest.raises(ValueError, match="no point head"):
        network(random_images(1, 2), points=True)


def test_observer_sees_what_attention_uses():
    network, seen = random_network(), {}
    images = random_images(2, 3)
    (plain,) = network(images)
    (watched,) = network(images, observe=lambda layer, q, k: seen.update({layer: (q, k)}))
    torch.testing.assert_close(watched.depth, plain.depth, rtol=0, atol=0)
    assert sorted(seen) == list(range(SMALL.depth))
    tokens = 3 * (SMALL.special_tokens + 2 * 3)
    assert seen[0][0].shape == seen[0][1].shape == (2, SMALL.num_heads, tokens, 16)


def test_bfloat16_blocks_stay_near_float32():
    images = random_images(1, 3)
    (exact,) = random_network()(images)
    (rounded,) = random_network(blocks="bfloat16")(images)
    assert rounded.depth.dtype == torch.float32
    error = (rounded.depth - exact.depth).norm() / exact.depth.norm()
    assert 0 < error < 0.05


def test_memory_and_heads_stay_float32_under_a_callers_autocast():
    network, images = random_network(blocks="bfloat16"), random_images(1, 3)
    (expected,) = network(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = network(images)
    torch.testing.assert_close(found.depth, expected.depth, rtol=0, atol=0)
    torch.testing.assert_close(found.camera, expected.camera, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["scal3r", "scal3r-tiny"])
def test_presets_survive_their_stored_form(name):
    assert Architecture.from_json(preset(name).to_json()) == preset(name)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"intermediate_layers": (0, 1, 2)}, "four rising layers"),
        ({"intermediate_layers": (0, 1, 2, 2)}, "ending with depth - 1 = 3"),
        ({"ttt_layers": (9,)}, "layer 9 does not exist"),
        ({"num_heads": 3}, "num_heads"),
        ({"dpt_out_channels": (8, 8, 8, 6)}, "divisible by 4"),
        ({"dense_head": "mlp"}, "dpt, linear or guided"),
    ],
)
def test_impossible_architectures_are_refused(change, text):
    with pytest.raises(ValueError, match=text):
        replace(SMALL, **change)


def test_unknown_entries_presets_and_formats_are_refused():
    with pytest.raises(ValueError, match="unknown architecture entries"):
        Architecture.from_dict({"embed_dims": 3})
    with pytest.raises(ValueError, match="known are scal3r, scal3r-tiny"):
        preset("scal3r-huge")
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        Numerics(newton_schulz="float16")
