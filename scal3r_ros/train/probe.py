"""Linear read-outs that exist only while training, never part of the shipped network.

The matching loss makes attention look at the right place. One read-out makes the patch tokens carry
what was found there: the displacement to the reference frame. The other makes the camera tokens
carry the pose, and keeps gradients coming should the camera head's activations die: a head that
answers the mean pose with all hidden units off never recovers by itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.train.losses import IDENTITY, Targets, pose_loss
from scal3r_ros.train.worlds.clips import Correspondences

_BETA = 0.1


class Probes(nn.Module):
    """Both read-outs, fed by hooks on the network."""

    def __init__(self, network: Scal3R, layer: int):
        super().__init__()
        self.displacement = DisplacementProbe(network, layer)
        self.pose = PoseProbe(network)

    def loss(
        self, truths: list[Correspondences], targets: list[Targets], grid: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Losses of the chunks seen since the last call."""
        return {
            "carried": self.displacement.loss(truths, grid),
            "carried_pose": self.pose.loss(targets),
        }


class PoseProbe(nn.Module):
    """Linear read-out of translation and quaternion from the normalised camera tokens."""

    def __init__(self, network: Scal3R):
        super().__init__()
        self.linear = nn.Linear(2 * network.architecture.embed_dim, 7)
        nn.init.normal_(self.linear.weight, std=1e-3)
        nn.init.zeros_(self.linear.bias)
        self.tokens: list[Tensor] = []
        network.cam_decoder.token_norm.register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, inputs: tuple, output: Tensor) -> None:
        if torch.is_grad_enabled():
            self.tokens.append(output)

    def loss(self, targets: list[Targets]) -> Tensor:
        """Whitened pose loss of the chunks seen since the last call."""
        losses = [
            pose_loss(self.linear(tokens) + tokens.new_tensor(IDENTITY), target.encoding[..., :7])
            for tokens, target in zip(self.tokens, targets)
        ]
        self.tokens = []
        return torch.stack(losses).mean()


class DisplacementProbe(nn.Module):
    """Linear read-out of the tokens behind one global block."""

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
        encoder.pos_embed[:, -side * side :] += amplitude * (code - code.mean(1, keepdim=True)).to(
            encoder.pos_embed
        )
