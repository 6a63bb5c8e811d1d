"""The network over several devices: what goes where, and that nothing else changes."""

import pytest
import torch
from small_loger import SMALL, random_frames, random_loger

from scal3r_ros.mapping.chunking import partition
from scal3r_ros.networks.loger.architecture import LOGER
from scal3r_ros.networks.loger.network import LoGeR
from scal3r_ros.networks.loger.placement import advance_in_turn, balanced, place
from scal3r_ros.networks.loger.state import WindowState


@pytest.mark.parametrize("devices", [1, 2, 3, 5])
@pytest.mark.parametrize("reset_every", [0, 2])
def test_windows_in_turn_equal_one_after_another(devices, reset_every):
    images = random_frames(13)
    spans = partition(len(images), 4, 1)
    alone, state, expected = random_loger(), WindowState(), []
    placed = random_loger()
    stages = place(placed, [torch.device("cpu")] * devices)
    with torch.inference_mode():
        for span in spans:
            frames = images[span.start : span.stop][None]
            out, state = alone(frames, 4, 1, state.before_next(reset_every))
            expected.append(out)
        windows, before = [], WindowState()
        for span in spans:
            tokens = placed.encode(images[span.start : span.stop])[None]
            windows.append(placed.begin(tokens, (2, 3), 4, 1, before.before_next(reset_every)))
            before = windows[-1].after
        advance_in_turn(placed, windows, stages)
        found = [placed.decode(window) for window in windows]
    assert stages[-1] == SMALL.decoder_depth - 1
    for a, b in zip(found, expected):
        for x, y in zip(vars(a).values(), vars(b).values()):
            assert torch.equal(x, y)
    for layer, weights in state.weights.items():
        for x, y in zip(before.weights[layer], weights):
            assert torch.equal(x, y)


def test_balance():
    assert balanced([1, 1, 1, 1], 2) == [2, 4]
    assert balanced([5, 1, 1, 1, 1, 1], 2) == [1, 6]
    assert balanced([1, 2, 3], 3) == [1, 2, 3]
    with pytest.raises(ValueError, match="2 parts of the network cannot be spread over 3"):
        balanced([1, 2], 3)


def test_full_size_halves_are_nearly_equal():
    """Parameters follow the placement; on devices that need no memory."""
    with torch.device("meta"):
        network = LoGeR(LOGER)
    stages = place(network, [torch.device("meta")] * 2)
    assert 10 <= stages[0] <= 18 and stages[1] == 35
