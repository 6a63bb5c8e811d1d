"""Alternating attention inside frames and over a window, with fast weights and window attention
after the blocks inside frames.

Of each pair of blocks the order is: inside frames, fast weights, attention to the window before,
over the window. Tokens follow the weights: a block on another device gets its tokens there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.layers import Block, Rotary, products_in, rotary_table
from scal3r_ros.networks.loger.architecture import Architecture, Numerics
from scal3r_ros.networks.loger.fast_memory import FastMemory
from scal3r_ros.networks.loger.state import WindowState
from scal3r_ros.networks.loger.window_attention import (
    BLOCK_EPS,
    QK_EPS,
    KeysValues,
    WindowAttention,
)

Observe = Callable[[str, Tensor], None]
"""Called with the name of a place in the decoder and the tokens (B, S, P, C) there."""


@dataclass
class WindowPass:
    """A window on its way through the blocks."""

    tokens: Tensor
    """(B, S, P, C) float32 residual stream."""
    grid: tuple[int, int]
    """Patches per frame, (gh, gw)."""
    positions: Tensor
    """(P, 2) of one frame's tokens."""
    before: WindowState
    """What earlier windows left; read only."""
    after: WindowState
    """What this window leaves, layer by layer as it passes them."""
    remember: bool = True
    """Without, nothing is left behind."""
    next_block: int = 0
    late: tuple[Tensor, ...] = ()
    """Outputs of the last two blocks, the former with its memory: what the heads read."""
    rope_base: float = 100.0
    angles: torch.dtype = torch.float32
    """Format to which rotary angles are rounded."""
    _rotaries: dict[tuple[torch.device, int], Rotary] = field(default_factory=dict)

    def rotary(self, head_dim: int) -> Rotary:
        """Table of one frame's tokens on the device where they are, made once."""
        key = (self.tokens.device, head_dim)
        if key not in self._rotaries:
            positions = self.positions.to(self.tokens.device)
            self._rotaries[key] = rotary_table(positions, head_dim, self.rope_base, self.angles)
        return self._rotaries[key]


class Decoder(nn.Module):
    """Its parts are attributes of the whole network in a checkpoint, hence the base class of it."""

    def __init__(self, a: Architecture, numerics: Numerics):
        super().__init__()
        self.architecture, self.numerics = a, numerics
        self.decoder = nn.ModuleList(
            Block(a.embed_dim, a.decoder_num_heads, a.mlp_ratio, a.layer_scale, BLOCK_EPS, QK_EPS)
            for _ in range(a.decoder_depth)
        )
        self.ttt_layers = nn.ModuleList(FastMemory(a) for _ in a.ttt_insert_after)
        self.ttt_gate_projs = _gates(a.embed_dim, len(a.ttt_insert_after))
        self.swa_layers = nn.ModuleList(WindowAttention(a) for _ in a.attn_insert_after)
        self.swa_gate_projs = _gates(a.embed_dim, len(a.attn_insert_after))

    def memory(self, layer: int) -> FastMemory:
        return cast(FastMemory, self.ttt_layers[layer])

    def advance(self, window: WindowPass, last: int, observe: Observe | None = None) -> None:
        """Take a window through the blocks up to and including `last`, with what follows them."""
        a = self.architecture
        for block in range(window.next_block, last + 1):
            if block % 2 == 0:
                self._inside_frames(block, window)
                _show(observe, f"block{block}", window.tokens)
                if block in a.ttt_insert_after:
                    self._read_and_write(a.ttt_insert_after.index(block), window)
                    _show(observe, f"block{block}_after_ttt", window.tokens)
                if block in a.attn_insert_after:
                    self._attend_to_previous(a.attn_insert_after.index(block), window)
                    _show(observe, f"block{block}_after_swa", window.tokens)
            else:
                self._over_window(block, window)
                _show(observe, f"block{block}", window.tokens)
            if block >= a.decoder_depth - 2:
                window.late += (window.tokens,)
            window.next_block = block + 1

    def _inside_frames(self, block: int, window: WindowPass) -> None:
        x = self._moved(window, self.decoder[block])
        out = self.decoder[block](x.flatten(0, 1), self._rotary(window))
        window.tokens = out.view_as(x).float()

    def _over_window(self, block: int, window: WindowPass) -> None:
        x = self._moved(window, self.decoder[block])
        out = self.decoder[block](x.flatten(1, 2), self._rotary(window))
        window.tokens = out.view_as(x).float()

    def _read_and_write(self, layer: int, window: WindowPass) -> None:
        """x + silu(gate(x)) memory(x): the gate reads the raw tokens."""
        memory, size = self.memory(layer), self.numerics.token_slice
        x = self._moved(window, memory).flatten(1, 2)
        weights = window.before.weights.get(layer) or memory.initial(len(x))
        answer = memory.answer(x, weights, size)
        if window.remember:
            g = memory.gradient(x, weights, size)
            dtype = getattr(torch, self.numerics.newton_schulz)
            with products_in("float32", x.device):
                window.after.weights[layer] = memory.update(weights, g, dtype)
        gated = x + F.silu(self.ttt_gate_projs[layer](x)).float() * answer
        window.tokens = gated.view_as(window.tokens)

    def _attend_to_previous(self, layer: int, window: WindowPass) -> None:
        """x + silu(gate(y)) y: the gate reads the block's output y, which holds x already."""
        block = cast(WindowAttention, self.swa_layers[layer])
        x = self._moved(window, block).flatten(1, 2)
        previous = window.before.cache.get(layer)
        y, own = block.attend(x, self._rotary(window), previous)
        if window.remember:
            window.after.cache[layer] = KeysValues(*own)
        y = y.float()
        gated = x + F.silu(self.swa_gate_projs[layer](y)).float() * y
        window.tokens = gated.view_as(window.tokens)

    def _moved(self, window: WindowPass, part: nn.Module) -> Tensor:
        """The window's tokens on the device of `part`."""
        window.tokens = window.tokens.to(device_of(part))
        return window.tokens

    def _rotary(self, window: WindowPass) -> Rotary:
        return window.rotary(self.architecture.embed_dim // self.architecture.decoder_num_heads)


def device_of(part: nn.Module) -> torch.device:
    return next(part.parameters()).device


def _gates(dim: int, count: int) -> nn.ModuleList:
    """Closed at first, so that an untrained memory changes nothing."""
    gates = [nn.Linear(dim, 1) for _ in range(count)]
    for gate in gates:
        nn.init.zeros_(gate.weight)
        nn.init.zeros_(gate.bias)
    return nn.ModuleList(gates)


def _show(observe: Observe | None, name: str, tokens: Tensor) -> None:
    if observe is not None:
        observe(name, tokens)
