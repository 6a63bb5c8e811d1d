"""The order in which chunks pass the layers: side by side, meeting at every memory unit.

One chunk at a time with a memory that lasts is the causal stream; all chunks in one round is
Scal3R's offline inference, where the memory is shared by the whole sequence; one chunk per process
in a round, with gradients summed over processes, is the same again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from scal3r_ros.networks.scal3r.aggregator import Aggregator, Observe
from scal3r_ros.networks.scal3r.architecture import Architecture, Numerics
from scal3r_ros.networks.scal3r.chunk_state import ChunkState
from scal3r_ros.networks.scal3r.memory import RoundMemory


class LayeredNetwork(Protocol):
    """What the order of layers needs of a network; `Scal3R` is one."""

    architecture: Architecture
    numerics: Numerics
    agg_regator: Aggregator

    @property
    def device(self) -> torch.device: ...

    def collect(
        self, state: ChunkState, layer: int, frame_half: Tensor, tokens: Tensor, /
    ) -> None: ...

    def block_precision(self) -> AbstractContextManager[None]: ...

    def full_precision(self) -> AbstractContextManager[None]: ...


class ChunkStates(Protocol):
    """States by position: a list, or what keeps them elsewhere between their turns."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ChunkState]: ...

    def __getitem__(self, position: int, /) -> ChunkState: ...

    def __setitem__(self, position: int, state: ChunkState, /) -> None: ...


def run_round(
    network: LayeredNetwork,
    states: ChunkStates,
    memory: RoundMemory,
    observe: Observe | None = None,
    park: torch.device | str | None = None,
) -> None:
    """Take `states`, which stand at the same layer, through all remaining layers, in place.

    A process without a chunk passes none and still takes its part in every exchange. With `park`,
    states rest on that device and only the one being worked on is on the network's.
    """
    start = 0
    if states:
        start = states[0].next_layer if states[0].awaits is None else states[0].awaits
    for layer in network.architecture.ttt_layers:
        if layer >= start:
            advance_all(network, states, layer, observe, park)
            add_memory(network, states, layer, memory, park)
    advance_all(network, states, network.architecture.depth - 1, observe, park)


def advance_all(
    network: LayeredNetwork,
    states: ChunkStates,
    last: int,
    observe: Observe | None = None,
    park: torch.device | str | None = None,
) -> None:
    """Run every chunk up to and including layer `last`, short of that layer's memory."""
    for i, state in enumerate(states):
        if state.next_layer <= last:
            here = state.to(network.device)
            with network.block_precision():
                network.agg_regator.advance(here, last, network.collect, observe)
            states[i] = here if park is None else here.to(park)


def add_memory(
    network: LayeredNetwork,
    states: ChunkStates,
    layer: int,
    memory: RoundMemory,
    park: torch.device | str | None = None,
) -> None:
    """Let the chunks write to the memory of `layer`, adapt it, and let every chunk read it; always
    in float32."""
    unit = network.agg_regator.memory_unit(layer)
    token_slice = network.numerics.token_slice
    gradients = (
        unit.gradient(here.tokens, here.memory_rotary, token_slice)
        for here in (state.to(network.device) for state in states)
    )
    with network.full_precision():
        weights = memory.adapt(layer, unit, gradients)
        for i, state in enumerate(states):
            here = state.to(network.device)
            own = weights[i] if isinstance(weights, list) else weights
            tokens = here.tokens
            if own is not None:
                tokens = unit.residual(tokens, own, here.memory_rotary, token_slice)
            network.agg_regator.remember(here, layer, tokens, network.collect)
            states[i] = here if park is None else here.to(park)
