"""A new encoder under an old network: what was learned is still there."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from small_network import random_network  # noqa: E402
from toy_run import TOY  # noqa: E402

from scal3r_ros.networks.xfeat import WeightsMissing, weights_file  # noqa: E402
from scal3r_ros.train.transplant import with_feature_encoder  # noqa: E402

NEW = replace(
    TOY,
    encoder="xfeat",
    patch_size=8,
    dense_head="guided",
    image_size=64,
    image_size_of_pos_embed=64,
)


@pytest.fixture(scope="module")
def pair():
    try:
        weights_file()
    except WeightsMissing as error:
        pytest.skip(str(error))
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(40, 3, 6, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(48, 64), mode="bilinear")
    old = random_network(TOY)
    return old, with_feature_encoder(old, NEW, images), images


def test_new_tokens_resemble_the_old_ones(pair):
    old, new, images = pair
    small = torch.nn.functional.interpolate(images, size=(42, 56), mode="bilinear", antialias=True)
    wanted, found = old.encode(small), new.encode(images)[..., :16]
    left = ((found - wanted) ** 2).mean() / ((wanted - wanted.mean((0, 1))) ** 2).mean()
    assert left < 0.7


def test_everything_behind_the_encoder_is_kept(pair):
    old, new, _ = pair
    theirs = old.state_dict()
    for name, value in new.state_dict().items():
        if "patch_embed" not in name and not name.startswith("dpt_decoder"):
            assert torch.equal(value, theirs[name]), name


def test_the_new_head_starts_with_the_old_means(pair):
    """Over a whole patch, the coarse values have the mean of the old pixels, which are quarters of
    unequal size."""
    old, new, _ = pair
    feature = torch.randn(1, 6, 32)
    (pixels,) = old.dpt_decoder.project(3, feature, (2, 3))
    (coarse,) = new.dpt_decoder.project(3, feature, (2, 3))
    flat = pixels.view(1, 2, 49, 2, 3).mean(2)
    found = coarse[:, :8].view(1, 2, 4, 2, 3).mean(2)
    assert (found - flat).abs().mean() < 0.25 * (flat - flat.mean()).abs().mean() + 1e-3
