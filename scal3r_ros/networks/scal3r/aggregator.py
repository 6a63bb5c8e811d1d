"""Alternating attention inside frames and over all frames of a chunk, with memory units between."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from scal3r_ros.networks.dinov2 import ImageEncoder
from scal3r_ros.networks.feature_encoder import FeatureEncoder
from scal3r_ros.networks.layers import Block, Rotary, grid_positions, rotary_table
from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.chunk_state import ChunkState
from scal3r_ros.networks.scal3r.key_selection import (
    KeySelection,
    attend_selected,
    diverse_frames,
)
from scal3r_ros.networks.scal3r.memory_unit import MemoryUnit

_EPS = 1e-5

Collect = Callable[[ChunkState, int, Tensor, Tensor], None]
"""Called with state, layer, frame-block output and final tokens of the layer, (B, S, P, C) both."""
Observe = Callable[[int, Tensor, Tensor], None]
"""Called with layer, queries and keys of a global block, (B, heads, S * P, head_dim) both, after
normalisation and rotation."""


class GlobalBlock(Block):
    """Attention over all tokens of a chunk, followed by a memory unit in some layers."""

    def __init__(self, a: Architecture, with_memory: bool):
        super().__init__(a.embed_dim, a.num_heads, a.mlp_ratio, a.layer_scale, _EPS, _EPS)
        if with_memory:
            self.ttt = MemoryUnit(a)

    def over_selected(
        self,
        x: Tensor,
        rotary: Rotary,
        keys: KeySelection,
        layer: int,
        state: ChunkState,
        depth: int,
    ) -> Tensor:
        """The block with the keys that a scheme keeps of all tokens (B, S * P, C)."""
        assert state.key_frames is not None, "a chunk begins with the frames whose keys are seen"
        normed = self.norm1(x)
        answers = attend_selected(
            self.attn, normed, rotary, keys, layer, depth, state.grid, state.key_frames
        )
        x = x + self.ls1(answers)
        return x + self.ls2(self.mlp(self.norm2(x)))


def _encoder(a: Architecture) -> ImageEncoder | FeatureEncoder:
    if a.encoder == "xfeat":
        return FeatureEncoder(a.embed_dim, a.pos_embed_grid)
    return ImageEncoder(
        a.embed_dim,
        a.vit_depth,
        a.vit_num_heads,
        patch_size=a.patch_size,
        pos_embed_grid=a.pos_embed_grid,
        num_register_tokens=a.num_register_tokens,
        mlp_ratio=a.mlp_ratio,
        layer_scale=a.vit_layer_scale,
    )


class Aggregator(nn.Module):
    """The encoder, the special tokens, and the frame and global blocks of all layers."""

    def __init__(self, a: Architecture):
        super().__init__()
        self.architecture = a
        self.keys = KeySelection()
        """Which keys global blocks see."""
        self.patch_embed = _encoder(a)
        self.frame_blocks = nn.ModuleList(
            Block(a.embed_dim, a.num_heads, a.mlp_ratio, a.layer_scale, _EPS, _EPS)
            for _ in range(a.depth)
        )
        self.global_blocks = nn.ModuleList(
            GlobalBlock(a, layer in a.ttt_layers) for layer in range(a.depth)
        )
        self.camera_token = nn.Parameter(torch.empty(1, 2, 1, a.embed_dim))
        self.register_token = nn.Parameter(torch.empty(1, 2, a.num_register_tokens, a.embed_dim))
        nn.init.normal_(self.camera_token, std=0.02)
        nn.init.normal_(self.register_token, std=0.02)

    def memory_unit(self, layer: int) -> MemoryUnit:
        return cast(GlobalBlock, self.global_blocks[layer]).ttt

    def begin(self, patch_tokens: Tensor, grid: tuple[int, int]) -> ChunkState:
        """Prepend the special tokens to `patch_tokens` (B, S, gh * gw, C); the first frame of the
        chunk has its own."""
        a, device = self.architecture, patch_tokens.device
        batch, frames = patch_tokens.shape[:2]
        special = torch.cat((self.camera_token, self.register_token), dim=2)
        rest = special[:, 1:].expand(batch, frames - 1, -1, -1)
        special = torch.cat((special[:, :1].expand(batch, -1, -1, -1), rest), dim=1)
        positions = grid_positions(grid, a.special_tokens, device)
        memory_width = a.embed_dim // a.ttt_num_heads
        chosen = None
        if self.keys.scheme != "none":
            if batch != 1:
                raise ValueError("model.acceleration takes one chunk at a time; set it to none")
            chosen = diverse_frames(patch_tokens[0], self.keys.frames)
        memory_table = rotary_table(positions[a.special_tokens :], memory_width, a.rope_base)
        return ChunkState(
            tokens=torch.cat((special, patch_tokens.float()), dim=2),
            grid=grid,
            frame_rotary=rotary_table(positions, a.embed_dim // a.num_heads, a.rope_base),
            memory_rotary=memory_table,
            key_frames=chosen,
        )

    def advance(
        self, state: ChunkState, last: int, collect: Collect, observe: Observe | None = None
    ) -> None:
        """Run `state` up to and including layer `last`; a memory unit there is left to `remember`.

        No layer before `last` may have a memory unit.
        """
        a = self.architecture
        for layer in range(state.next_layer, last + 1):
            frame_half, state.tokens = self._layer(layer, state, observe)
            state.next_layer = layer + 1
            collected = layer in a.intermediate_layers
            if layer in a.ttt_layers:
                state.awaits = layer
                state.frame_half = frame_half if collected else None
            elif collected:
                collect(state, layer, frame_half, state.tokens)

    def remember(self, state: ChunkState, layer: int, tokens: Tensor, collect: Collect) -> None:
        """Go on from a memory layer with `tokens`, the memory's answer included."""
        state.tokens, state.awaits = tokens, None
        if state.frame_half is not None:
            collect(state, layer, state.frame_half, tokens)
            state.frame_half = None

    def _layer(
        self, layer: int, state: ChunkState, observe: Observe | None
    ) -> tuple[Tensor, Tensor]:
        tokens, rotary = state.tokens, state.frame_rotary
        batch, frames = tokens.shape[:2]
        inside = self.frame_blocks[layer](tokens.flatten(0, 1), rotary)
        inside = inside.unflatten(0, (batch, frames))
        if state.key_frames is not None:
            block = cast(GlobalBlock, self.global_blocks[layer])
            flat, depth = inside.flatten(1, 2), self.architecture.depth
            over = block.over_selected(flat, rotary, self.keys, layer, state, depth)
            return inside, over.view_as(tokens)
        watch = None if observe is None else lambda q, k: observe(layer, q, k)
        over = self.global_blocks[layer](inside.flatten(1, 2), rotary, watch)
        return inside, over.view_as(tokens)
