"""What only a CUDA device can show: bfloat16 blocks, and parts on two kinds of device."""

import pytest
import torch
from small_loger import random_frames, random_loger

from scal3r_ros.networks.loger.placement import place

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def two_windows(network):
    images = random_frames(7)
    first, state = network(images[None, :4], 4, 1)
    second, state = network(images[None, 3:], 4, 1, state)
    return [x.cpu() for out in (first, second) for x in vars(out).values()], state


def test_bfloat16_blocks_stay_close_and_leave_float32_behind():
    expected, _ = two_windows(random_loger().cuda())
    found, state = two_windows(random_loger(blocks="bfloat16").cuda())
    for a, b in zip(found, expected):
        assert a.dtype == torch.float32
        assert torch.linalg.norm(a - b) <= 0.1 * torch.linalg.norm(b)
    assert all(w.dtype == torch.float32 for triple in state.weights.values() for w in triple)
    assert state.cache[0].keys.dtype == torch.bfloat16


def test_parts_on_two_devices_equal_one():
    expected, _ = two_windows(random_loger())
    network = random_loger()
    place(network, [torch.device("cuda:0"), torch.device("cpu")])
    assert network.device.type == "cuda" and network.camera_head.fc_t.weight.device.type == "cpu"
    for a, b in zip(two_windows(network)[0], expected):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
