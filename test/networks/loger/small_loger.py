"""A small random LoGeR whose memory matters, and random images."""

from dataclasses import replace

import torch
from torch import nn

from scal3r_ros.networks.loger.architecture import Architecture, Numerics
from scal3r_ros.networks.loger.network import LoGeR

SMALL = Architecture(
    pos_embed_image_size=42,
    embed_dim=32,
    encoder_depth=1,
    encoder_num_heads=2,
    decoder_depth=6,
    decoder_num_heads=2,
    layer_scale=1.0,
    num_register_tokens=2,
    ttt_insert_after=(0, 2, 4),
    attn_insert_after=(2, 4),
    ttt_head_dim=16,
    ttt_inter_multi=2,
    head_embed_dim=16,
    head_num_heads=2,
    head_depth=1,
    camera_dim=8,
    pixel_limit=28 * 42,
)
SMALL_STAR = replace(SMALL, ttt_pre_norm=False, se3=True)


def random_loger(architecture=SMALL, seed=0, **numerics) -> LoGeR:
    torch.manual_seed(seed)
    network = LoGeR(architecture, Numerics(**numerics))
    for gate in (*network.ttt_gate_projs, *network.swa_gate_projs):
        nn.init.constant_(gate.bias, 0.8)
    return network.eval().requires_grad_(False)


def random_frames(count: int, seed: int = 1) -> torch.Tensor:
    """(count, 3, 28, 42) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 28, 42), generator=generator, dtype=torch.uint8)
