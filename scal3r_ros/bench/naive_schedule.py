"""The schedule to compare with: all chunks layer by layer, tokens to the host and back at every
layer, every frame of every chunk encoded, both dense heads, float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scal3r_ros.networks.scal3r.memory import ContextMemory
from scal3r_ros.networks.scal3r.network import Prediction, Scal3R
from scal3r_ros.networks.scal3r.schedule import add_memory, advance_all


@torch.no_grad()
def run_naively(network: Scal3R, chunks: Sequence[Tensor]) -> list[Prediction]:
    """Chunks (1, S, 3, H, W) uint8 in network order; the result equals one batch round."""
    a = network.architecture
    states = []
    for images in chunks:
        tokens = network.encode(images[0])[None]
        states.append(network.begin(tokens, network.grid(images), points=a.points_head))
    memory = ContextMemory(network.numerics.newton_schulz).round(len(states))
    for layer in range(a.depth):
        for i, state in enumerate(states):
            state.tokens = state.tokens.to(network.device)
            one = [state]
            advance_all(network, one, layer)
            states[i] = one[0]
            states[i].tokens = states[i].tokens.cpu()
        if layer in a.ttt_layers:
            add_memory(network, states, layer, memory)
            for state in states:
                state.tokens = state.tokens.cpu()
    return [network.decode(state) for state in states]
