"""Fixtures of the network's tests."""

import pytest
import torch
from small_network import random_images, random_network

from scal3r_ros.networks.scal3r.network import Scal3R


@pytest.fixture
def network() -> Scal3R:
    return random_network()


@pytest.fixture
def chunks() -> list[torch.Tensor]:
    """Four chunks of unequal length."""
    return [random_images(1, frames, seed=frames) for frames in (3, 4, 2, 5)]
