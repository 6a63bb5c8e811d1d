"""Heads: a pose from the pose token, maps of points from the patch tokens.

Both kinds of head answer the same calls; a map in the frame of the block's first camera passes the
tokens through two blocks that the pose token modulates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.layers import Mlp, Rotary
from scal3r_ros.networks.mem3r import outputs
from scal3r_ros.networks.mem3r.architecture import MLP_RATIO, Architecture
from scal3r_ros.networks.mem3r.attention import image_positions, table
from scal3r_ros.networks.mem3r.blocks import ModulatedBlock
from scal3r_ros.networks.mem3r.dpt import Dpt

_TRANSFORM_BLOCKS = 2


@dataclass(frozen=True)
class Hooks:
    """What the heads read of one frame."""

    levels: tuple[Tensor, Tensor, Tensor]
    """Patch tokens of the encoder (B, N, d_e) and of two depths of the decoder (B, N, d)."""
    last: Tensor
    """Normalised end of the image decoder (B, 1 + N, d), the pose token first."""
    grid: tuple[int, int]
    """Rows and columns of patches."""

    @property
    def pose(self) -> Tensor:
        """Refined pose token, (B, d)."""
        return self.last[:, 0]

    @property
    def patches(self) -> Tensor:
        return self.last[:, 1:]


class _Heads(nn.Module):
    """What both kinds share: pose, and the tokens of the world map."""

    def __init__(self, a: Architecture):
        super().__init__()
        self.head_dim = a.dec_embed_dim // a.dec_num_heads
        pose = Mlp(a.dec_embed_dim, MLP_RATIO * a.dec_embed_dim, 7)
        self.pose_head = nn.ModuleDict({"mlp": pose})
        if a.world_map:
            self.final_transform = nn.ModuleList(
                ModulatedBlock(a.dec_embed_dim, a.dec_num_heads) for _ in range(_TRANSFORM_BLOCKS)
            )

    def camera_pose(self, hooks: Hooks) -> Tensor:
        """Encoded pose (B, 7), see `outputs.pose_encoding`."""
        return outputs.pose_encoding(self.pose_head["mlp"](hooks.pose))

    def transformed(self, hooks: Hooks) -> Tensor:
        """Patch tokens for the world map, (B, N, d)."""
        tokens, rotary = hooks.patches, self._table(hooks)
        for block in self.final_transform:
            tokens = block(tokens, hooks.pose, rotary)
        return tokens

    def _table(self, hooks: Hooks) -> Rotary | None:
        return table(image_positions(hooks.grid, False, hooks.last.device), self.head_dim)


class DptHeads(_Heads):
    """One convolutional head per map."""

    def __init__(self, a: Architecture):
        super().__init__(a)
        self.dpt_self, self.dpt_cross = Dpt(a, 4), Dpt(a, 4)
        if a.ray_maps:
            self.dpt_rgb = Dpt(a, 3)

    def camera_map(self, hooks: Hooks) -> tuple[Tensor, Tensor]:
        """Points (B, H, W, 3) and confidence (B, H, W) in the camera's frame."""
        return outputs.points_and_confidence(self.raw(self.dpt_self, hooks, hooks.patches))

    def world_map(self, hooks: Hooks) -> tuple[Tensor, Tensor]:
        """The same in the frame of the block's first camera."""
        raw = self.raw(self.dpt_cross, hooks, self.transformed(hooks))
        return outputs.points_and_confidence(raw)

    def colour_map(self, hooks: Hooks) -> Tensor:
        """The image as the network remembers it, (B, H, W, 3) between -1 and 1."""
        return outputs.colour(self.raw(self.dpt_rgb, hooks, hooks.patches))

    def raw(self, head: Dpt, hooks: Hooks, tokens: Tensor) -> Tensor:
        """Map of `head` with `tokens` (B, N, d) as its last level."""
        return head((*hooks.levels, tokens), hooks.grid)


class LinearHeads(_Heads):
    """One MLP per map, from a token to the pixels of its patch."""

    def __init__(self, a: Architecture):
        super().__init__(a)
        self.patch_size = a.patch_size
        width, hidden, pixels = a.dec_embed_dim, MLP_RATIO * a.dec_embed_dim, a.patch_size**2
        self.proj = Mlp(width, hidden, 4 * pixels)
        if a.world_map:
            self.cross_proj = Mlp(width, hidden, 4 * pixels)
        if a.ray_maps:
            self.rgb_proj = Mlp(width, hidden, 3 * pixels)

    def camera_map(self, hooks: Hooks) -> tuple[Tensor, Tensor]:
        """Points (B, H, W, 3) and confidence (B, H, W) in the camera's frame."""
        raw = self._pixels(self.proj(hooks.patches), hooks.grid)
        return outputs.points_and_confidence(raw, forward_only=True)

    def world_map(self, hooks: Hooks) -> tuple[Tensor, Tensor]:
        """The same in the frame of the block's first camera."""
        raw = self._pixels(self.cross_proj(self.transformed(hooks)), hooks.grid)
        return outputs.points_and_confidence(raw)

    def colour_map(self, hooks: Hooks) -> Tensor:
        """The image as the network remembers it, (B, H, W, 3) between -1 and 1."""
        return outputs.colour(self._pixels(self.rgb_proj(hooks.patches), hooks.grid))

    def _pixels(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, grid), self.patch_size)


def make_heads(a: Architecture) -> DptHeads | LinearHeads:
    """The kind of heads that the architecture names."""
    return (DptHeads if a.head == "dpt" else LinearHeads)(a)
