"""A read-out that exists only while training: displacement to the reference frame from patch tokens.

The matching loss makes attention look at the right place; this makes the tokens carry what was
found there, which the camera token needs. It is not part of the network and is never shipped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.model.network import Scal3R
from scal3r_ros.train.worlds import Correspondences

_BETA = 0.1


class DisplacementProbe(nn.Module):
    """Linear read-out of the tokens behind one global block, by a hook on the network."""

    def __init__(self, network: Scal3R, layer: int):
        super().__init__()
        self.linear = nn.Linear(network.architecture.embed_dim, 2)
        self.special = network.architecture.special_tokens
        self.tokens: list[Tensor] = []
        block = network.agg_regator.global_blocks[layer]
        block.register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, inputs: tuple, output: Tensor) -> None:
        if torch.is_grad_enabled():
            self.tokens.append(output)

    def loss(self, truths: list[Correspondences], grid: tuple[int, int]) -> Tensor:
        """Huber loss of the displacements, in patches, of the chunks seen since the last call."""
        rows = torch.arange(grid[0]).repeat_interleave(grid[1])
        columns = torch.arange(grid[1]).repeat(grid[0])
        losses = []
        for tokens, truth in zip(self.tokens, truths):
            frames = truth.position.shape[1]
            patches = tokens.unflatten(1, (frames, -1))[:, 1:, self.special :].float()
            own = torch.stack([rows, columns], -1).to(patches)
            goal = truth.position[:, 1:, 0] - own
            mask = truth.visible[:, 1:, 0].float()
            error = F.smooth_l1_loss(self.linear(patches), goal, beta=_BETA, reduction="none")
            losses.append((error.sum(-1) * mask).sum() / mask.sum().clamp(min=1.0))
        self.tokens = []
        return torch.stack(losses).mean()


def write_place_code(network: Scal3R, amplitude: float = 0.5) -> None:
    """Start the encoder's position embedding as waves along x and y instead of noise: a token that
    says where it is lets attention carry positions from the first step on."""
    encoder = network.agg_regator.patch_embed
    side, width = encoder.side, network.architecture.embed_dim
    place = (torch.arange(side) + 0.5) / side - 0.5
    frequency = torch.logspace(0, 3, width // 4, base=2.0) * torch.pi / 2
    waves = torch.cat(
        [torch.sin(place[:, None] * frequency), torch.cos(place[:, None] * frequency)], -1
    )
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    code = torch.cat([rows, columns], -1).reshape(1, side * side, width)
    with torch.no_grad():
        encoder.pos_embed[:, 1:] += amplitude * (code - code.mean(1, keepdim=True)).to(
            encoder.pos_embed
        )
