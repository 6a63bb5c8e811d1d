"""Input that cannot be right is refused with one sentence; odd but legal input works."""

import numpy as np
import pytest
import torch
from small_network import random_images

from scal3r_ros.reconstruct.preprocessing import prepare_image, target_size


def test_sizes_that_do_not_split_into_patches(network):
    images = random_images(1, 2)[..., :-1]
    with pytest.raises(ValueError, match=r"28 x 41 pixels do not split into patches of 14"):
        network(images)


def test_empty_chunk(network):
    with pytest.raises(ValueError, match="at least one frame"):
        network(random_images(1, 2)[:, :0])


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.int16])
def test_wrong_dtype(network, dtype):
    with pytest.raises(ValueError, match="uint8 or float"):
        network(random_images(1, 2).to(dtype))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 200.0])
def test_floats_out_of_range(network, value):
    images = random_images(1, 2) / 255
    images[0, 1, 2, 3, 4] = value
    with pytest.raises(ValueError, match=r"must be in \[0, 1\] without NaN"):
        network(images)


def test_float_images_equal_8_bit_images(network):
    images = random_images(1, 2)
    (a,), (b,) = network(images), network(images.double() / 255)
    torch.testing.assert_close(a.depth, b.depth)


def test_single_frame(network):
    (prediction,) = network(random_images(1, 1), points=True)
    assert prediction.depth.shape == (1, 1, 28, 42)
    assert torch.isfinite(prediction.depth).all()


def test_images_of_other_sizes_take_the_first_ones_target():
    target = target_size(480, 640, 518, 14)
    assert target == (378, 518)
    for shape in ((480, 640), (1920, 1080), (5, 9), (1, 1), (13, 4000)):
        prepared = prepare_image(np.full((*shape, 3), 7, np.uint8), target, 14)
        assert prepared.rgb.shape == (378, 518, 3)
        assert (prepared.rgb == 7).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (686, 518)),
        ((720, 1280), (280, 518)),
        ((376, 1241), (154, 518)),
        ((1920, 1080), (910, 518)),
        ((3, 900), (14, 518)),
    ],
)
def test_target_sizes(size, expected):
    assert target_size(*size, 518, 14) == expected


def test_own_size_is_rounded_down_to_patches():
    assert target_size(100, 150, 0, 14) == (98, 140)
    assert target_size(5, 9, 0, 14) == (14, 14)


def test_images_that_are_not_8_bit_rgb_are_refused():
    for wrong in (
        np.zeros((20, 20), np.uint8),
        np.zeros((20, 20, 4), np.uint8),
        np.zeros((20, 20, 3), np.float32),
    ):
        with pytest.raises(ValueError, match="must be"):
            prepare_image(wrong, (14, 14), 14)


def test_image_size_below_one_patch_is_refused():
    with pytest.raises(ValueError, match="smaller than one patch"):
        target_size(480, 640, 10, 14)
    with pytest.raises(ValueError, match="empty"):
        target_size(0, 640, 518, 14)
