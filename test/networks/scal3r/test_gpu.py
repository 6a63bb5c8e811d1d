"""On a CUDA device: the reference outputs, and the bounds on memory at full size."""

import pytest
import torch
from golden_files import WatchedNetwork, check_outputs, chunks_of, load, weights
from small_network import random_images, random_network

from scal3r_ros.bench.model import run_case
from scal3r_ros.bench.model_cases import ModelCase
from scal3r_ros.networks.scal3r.memory import ContextMemory
from scal3r_ros.networks.scal3r.schedule import run_round

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def exact_products():
    """TF32 off, as the reference tolerances ask."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_coupled_chunks_on_the_device(exact_products):
    golden = load("model_chunks_ns32")
    network = WatchedNetwork(weights(), "float32").to("cuda")
    for c, prediction in enumerate(network(chunks_of(golden), points=True)):
        fields = {k: v.cpu() for k, v in vars(prediction).items()}
        check_outputs(type(prediction)(**fields), golden, f"chunk{c}.", factor=5)


def test_bfloat16_blocks_stay_near_float32_on_the_device(exact_products):
    images = random_images(1, 3)
    (exact,) = random_network().to("cuda")(images)
    (rounded,) = random_network(blocks="bfloat16").to("cuda")(images)
    error = (rounded.depth - exact.depth).norm() / exact.depth.norm()
    assert 0 < error < 0.05


def test_no_layer_waits_for_the_device():
    """An operation that would make the host wait for the device raises an error."""
    network = random_network(blocks="bfloat16").to("cuda")
    images = random_images(1, 3).to("cuda")
    tokens = network.encode(images[0])[None]
    states = [network.begin(tokens, network.grid(images), points=True)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        run_round(network, states, ContextMemory().round())
        network.decode(states[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
def test_full_size_chunk_stays_below_eight_gibibytes():
    result = run_case(ModelCase("scal3r", "stream", "bfloat16", 60, 392, 518, 2, "cuda:0"))
    assert result.peak_device < 8 * 1024
