"""Attention to the window before: its keys and values are kept as they were, not compressed.

Keys and values of two windows are concatenated without a mask. There is no position in time: frames
of both windows sit at the same places of the image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scal3r_ros.networks.layers import Block, Rotary
from scal3r_ros.networks.loger.architecture import Architecture

BLOCK_EPS, QK_EPS = 1e-6, 1e-5


class KeysValues(NamedTuple):
    """Of all tokens of one window, (B, heads, L, head_dim) each; keys normalised and rotated."""

    keys: Tensor
    values: Tensor


class WindowAttention(Block):
    """A decoder block whose attention also sees what the previous window left."""

    def __init__(self, a: Architecture):
        super().__init__(
            a.embed_dim, a.decoder_num_heads, a.ttt_inter_multi, a.layer_scale, BLOCK_EPS, QK_EPS
        )

    def attend(
        self, x: Tensor, rotary: Rotary, previous: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """Block output for tokens (B, L, C), and the keys and values they leave to the next window.

        Without `previous` this is plain attention inside the window.
        """
        q, k, v = self.attn.heads(self.norm1(x), rotary)
        own = KeysValues(k, v)
        if previous is not None:
            k = torch.cat((previous.keys.to(k.dtype), k), dim=2)
            v = torch.cat((previous.values.to(v.dtype), v), dim=2)
        x = x + self.ls1(self.attn.attend(q, k, v))
        return x + self.ls2(self.mlp(self.norm2(x))), own
