"""A small random network whose memory units matter, and chunks of random images."""

import torch
from torch import nn

from scal3r_ros.networks.scal3r.architecture import Architecture, Numerics
from scal3r_ros.networks.scal3r.network import Scal3R

SMALL = Architecture(
    image_size_of_pos_embed=42,
    embed_dim=32,
    vit_depth=2,
    vit_num_heads=2,
    depth=4,
    num_heads=2,
    layer_scale=1.0,
    intermediate_layers=(0, 1, 2, 3),
    ttt_layers=(1, 2, 3),
    camera_trunk_depth=1,
    camera_num_heads=2,
    dpt_features=16,
    dpt_out_channels=(8, 8, 8, 8),
    image_size=56,
)


def random_network(architecture=SMALL, seed=0, **numerics) -> Scal3R:
    torch.manual_seed(seed)
    network = Scal3R(architecture, Numerics(**numerics))
    for layer in architecture.ttt_layers:
        nn.init.normal_(network.agg_regator.memory_unit(layer).proj.weight, std=0.3)
    return network.eval().requires_grad_(False)


def random_images(*shape: int, seed: int = 1) -> torch.Tensor:
    """(B, S, 3, 28, 42) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3, 28, 42), generator=generator, dtype=torch.uint8)
