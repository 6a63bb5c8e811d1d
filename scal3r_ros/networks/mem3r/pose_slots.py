"""CUT3R's memory of poses: slots of (image key | pose), read and written by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scal3r_ros.networks.mem3r.architecture import MEMORY_BLOCKS, Architecture
from scal3r_ros.networks.mem3r.blocks import DecoderBlock


class PoseSlots(nn.Module):
    """What a mean image feature recalls of earlier poses. The memory is handed in and out:
    `(slots,)` with slots (B, m, 2d)."""

    def __init__(self, a: Architecture):
        super().__init__()
        width = 2 * a.dec_embed_dim
        self.proj_q = nn.Linear(a.enc_embed_dim, a.dec_embed_dim)
        self.masked_token = nn.Parameter(torch.randn(1, 1, a.dec_embed_dim) * 0.02)
        self.mem = nn.Parameter(torch.randn(1, a.local_mem_size, width) * 0.02)
        blocks = [
            nn.ModuleList(DecoderBlock(width, a.dec_num_heads) for _ in range(MEMORY_BLOCKS))
            for _ in ("read", "write")
        ]
        self.read_blocks, self.write_blocks = blocks

    def initial(self, batch: int) -> tuple[Tensor, ...]:
        return (self.mem.expand(batch, -1, -1),)

    def read(self, feature: Tensor, memory: tuple[Tensor, ...]) -> Tensor:
        """Pose token (B, d) that `feature` (B, d_e) recalls."""
        key = self.proj_q(feature)[:, None]
        x = torch.cat((key, self.masked_token.expand(len(key), -1, -1)), dim=-1)
        for block in self.read_blocks:
            x = block(x, memory[0])
        return x[:, 0, key.shape[-1] :]

    def write(
        self, feature: Tensor, memory: tuple[Tensor, ...], pose: Tensor
    ) -> tuple[Tensor, ...]:
        """The memory after a frame with mean `feature` (B, d_e) and refined `pose` (B, d)."""
        entry = torch.cat((self.proj_q(feature), pose), dim=-1)[:, None]
        (slots,) = memory
        for block in self.write_blocks:
            slots = block(slots, entry)
        return (slots,)
