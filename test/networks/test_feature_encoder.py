"""The encoder of small networks: XFeat's features, and finer maps that say where edges are."""

from dataclasses import replace

import pytest
import torch
from small_network import SMALL, random_network

from scal3r_ros.networks.feature_encoder import FeatureBackbone, normalised
from scal3r_ros.networks.scal3r.guided_head import GuidedHead
from scal3r_ros.networks.scal3r.memory import CausalMemory, ContextMemory, LocalMemory
from scal3r_ros.networks.xfeat import WeightsMissing, XFeat, load_xfeat, weights_file

SEEING = replace(
    SMALL,
    encoder="xfeat",
    patch_size=8,
    dense_head="guided",
    points_head=False,
    image_size_of_pos_embed=32,
)


def images(*shape: int, height: int = 24, width: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(*shape, 3, height, width, generator=generator)


def test_folded_normalisations_change_no_feature():
    """Against the module that keeps its normalisations, with random running statistics."""
    torch.manual_seed(0)
    xfeat = XFeat().eval()
    for name, values in xfeat.state_dict().items():
        if "running_mean" in name:
            values.normal_(std=0.3)
        if "running_var" in name:
            values.uniform_(0.3, 2.0)
    backbone = FeatureBackbone()
    backbone.read_xfeat(xfeat.state_dict())
    plane = normalised(images(2, height=64, width=96))
    with torch.no_grad():
        features, guides = backbone(plane)
        expected = xfeat.backbone(plane)
    torch.testing.assert_close(features, expected.features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(guides[:, :24], expected.quarter, rtol=1e-4, atol=1e-5)


def test_xfeats_weights_match_a_shifted_image():
    try:
        weights_file()
    except WeightsMissing as error:
        pytest.skip(str(error))
    backbone = FeatureBackbone()
    backbone.read_xfeat(load_xfeat().state_dict())
    picture = torch.nn.functional.interpolate(images(1, height=30, width=40), size=(120, 160))
    shifted = picture.roll((16, 24), (2, 3))
    with torch.no_grad():
        a, b = (backbone(normalised(x))[0][0].flatten(1) for x in (picture, shifted))
    similar = torch.nn.functional.normalize(a, dim=0).T @ torch.nn.functional.normalize(b, dim=0)
    found = similar.argmax(1).view(15, 20)[2:11, 2:15]
    rows, columns = torch.meshgrid(torch.arange(4, 13), torch.arange(5, 18), indexing="ij")
    assert (found == rows * 20 + columns).float().mean() > 0.9


def test_sides_need_only_be_whole_patches():
    """15 patches are no power of two: coarse maps reach beyond the image and are cut."""
    network = random_network(SEEING)
    assert network.encode(images(2, height=120, width=160)).shape == (2, 300, 32 + 288)
    (prediction,) = network(images(1, 2))
    assert prediction.depth.shape == (1, 2, 24, 40)


def test_brightness_and_contrast_change_no_token():
    network = random_network(SEEING)
    picture = images(1)
    dimmed = 0.3 + 0.5 * picture
    torch.testing.assert_close(network.encode(dimmed), network.encode(picture), atol=0.02, rtol=0)


def test_every_pixel_lies_between_the_coarse_values_round_it():
    torch.manual_seed(0)
    head = GuidedHead(SEEING, 2).requires_grad_(False)
    (projected,) = head.project(head.last, torch.randn(1, 15, 64), (3, 5))
    guides = torch.randn(1, 288, 3, 5)
    fine = head((guides, projected))
    assert fine.shape == (1, 2, 24, 40)
    coarse = torch.nn.functional.pixel_shuffle(projected[:, :8], 2)
    padded = torch.nn.functional.pad(coarse, (1, 1, 1, 1), mode="replicate")
    highest = torch.nn.functional.max_pool2d(padded, 3, 1).repeat_interleave(4, 2)
    lowest = -torch.nn.functional.max_pool2d(-padded, 3, 1).repeat_interleave(4, 2)
    assert (fine <= highest.repeat_interleave(4, 3) + 1e-5).all()
    assert (fine >= lowest.repeat_interleave(4, 3) - 1e-5).all()
    assert fine.view(2, 3, 8, 5, 8).permute(0, 1, 3, 2, 4).flatten(-2).std(-1).min() > 0


def test_finer_maps_reach_the_depth_and_not_the_tokens():
    network = random_network(SEEING)
    torch.nn.init.normal_(network.dpt_decoder.correction.weight)
    tokens = network.encode(images(2))[None]
    other = tokens.clone()
    other[..., 32:] += 1.0
    states = [network.begin(x, (3, 5)) for x in (tokens, other)]
    torch.testing.assert_close(states[0].tokens, states[1].tokens, rtol=0, atol=0)
    for state in states:
        network.agg_regator.advance(state, 0, network.collect)
        assert len(state.split()[0].joined(state.split()[1]).levels["depth"]) == 1
    assert not torch.equal(states[0].levels["depth"][0], states[1].levels["depth"][0])


def test_the_laws_of_memories_hold_behind_it():
    """One chunk is the same in every mode; a second chunk in a stream reads what the first wrote,
    and the first does not read the second."""
    network, chunks = random_network(SEEING), [images(1, 3), images(1, 3).flip(1)]
    memory, streamed = ContextMemory(), []
    for chunk in chunks:
        round_ = memory.round(1)
        streamed += network(chunk, memory=round_)
        round_.commit()
    for other in (ContextMemory().round(1), LocalMemory(), CausalMemory()):
        (alone,) = network(chunks[0], memory=other)
        torch.testing.assert_close(alone.depth, streamed[0].depth, rtol=0, atol=0)
    in_one_call = network(chunks, memory=CausalMemory())
    for found, expected in zip(in_one_call, streamed):
        torch.testing.assert_close(found.depth, expected.depth, rtol=1e-5, atol=1e-5)
    (apart,) = network(chunks[1], memory=LocalMemory())
    assert (apart.depth - streamed[1].depth).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"encoder": "resnet"}, "dinov2 or xfeat"),
        ({"patch_size": 14, "image_size_of_pos_embed": 28}, "patch_size of 8"),
        ({"encoder": "dinov2"}, "needs the encoder xfeat"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, text):
    with pytest.raises(ValueError, match=text):
        replace(SEEING, **change)
