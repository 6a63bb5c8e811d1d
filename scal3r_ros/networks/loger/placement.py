"""One network over several devices: each takes a run of consecutive parts, and windows follow one
another through them.

Fast weights of a layer pass from a window to the next, so windows cannot be computed side by side
and summed. But while a window is in the second device's layers, the next can be in the first's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import nn

from scal3r_ros.networks.loger.decoder import WindowPass
from scal3r_ros.networks.loger.network import LoGeR

_HEADS, _HEAD_PARTS = ("point", "conf", "camera"), ("decoder", "head")
_REWORK = 3
"""How often each number of the fast weights is multiplied in gradients and update, beside the
reading: that is what makes a memory layer cost more than its size tells."""


def place(network: LoGeR, devices: Sequence[torch.device]) -> list[int]:
    """Move the parts of `network` to `devices`, costs balanced; returns the last block of each.

    Encoder first, pairs of blocks with their memory, heads last.
    """
    a = network.architecture
    parts: list[list[nn.Module]] = [[network.encoder]]
    for block in range(0, a.decoder_depth, 2):
        parts.append(_pair(network, block))
    parts.append([getattr(network, f"{name}_{part}") for name in _HEADS for part in _HEAD_PARTS])
    costs = [sum(_cost(module) for module in part) for part in parts]
    ends = balanced(costs, len(devices))
    for part, modules in enumerate(parts):
        device = devices[sum(part >= end for end in ends[:-1])]
        for module in modules:
            module.to(device)
    network.image_mean, network.image_std = (
        buffer.to(devices[0]) for buffer in (network.image_mean, network.image_std)
    )
    # parts before an end include the encoder; a device with the encoder or the heads alone has no
    # block of its own
    return [min(max(2 * (end - 1), 0), a.decoder_depth) - 1 for end in ends]


def balanced(costs: Sequence[float], parts: int) -> list[int]:
    """Ends of `parts` runs of consecutive `costs`, the dearest of which is as cheap as can be."""
    if not 1 <= parts <= len(costs):
        raise ValueError(f"{len(costs)} parts of the network cannot be spread over {parts} devices")
    sums = [0.0, *accumulate(costs)]
    # by number of runs and their end: the dearest run, and all ends
    best: dict[tuple[int, int], tuple[float, list[int]]] = {(0, 0): (0.0, [])}
    for run in range(1, parts + 1):
        for end in range(run, len(costs) + 1):
            choices = []
            for start in range(run - 1, end):
                if (run - 1, start) in best:
                    dearest, ends = best[run - 1, start]
                    choices.append((max(dearest, sums[end] - sums[start]), [*ends, end]))
            best[run, end] = min(choices)
    return best[parts, len(costs)][1]


def advance_in_turn(network: LoGeR, windows: Sequence[WindowPass], stages: Sequence[int]) -> None:
    """Take consecutive windows through all blocks, each window one stage behind the one before.

    `stages` are the last blocks of the devices. What a window reads (`before`) is what its
    predecessor leaves (`after`), filled in as that one passes. On a GPU calls return at once, so
    that the devices work at the same time.
    """
    for step in range(len(windows) + len(stages) - 1):
        for stage in reversed(range(len(stages))):
            if 0 <= step - stage < len(windows):
                network.advance(windows[step - stage], stages[stage])


def _pair(network: LoGeR, block: int) -> list[nn.Module]:
    """Two blocks and what is inserted between them."""
    a = network.architecture
    modules = [network.decoder[block], network.decoder[block + 1]]
    if block in a.ttt_insert_after:
        layer = a.ttt_insert_after.index(block)
        modules += [network.ttt_layers[layer], network.ttt_gate_projs[layer]]
    if block in a.attn_insert_after:
        layer = a.attn_insert_after.index(block)
        modules += [network.swa_layers[layer], network.swa_gate_projs[layer]]
    return modules


def _cost(module: nn.Module) -> float:
    """Multiplications per token, without those of attention between tokens."""
    total = 0
    for name, parameter in module.named_parameters():
        if not name.startswith("to_qkv_stack"):
            total += parameter.numel() * (1 + _REWORK * (name in ("w0", "w1", "w2")))
    return total
