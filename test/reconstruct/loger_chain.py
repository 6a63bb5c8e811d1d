"""A small LoGeR of random weights whose points lie near the rays of a camera."""

import torch
from small_loger import SMALL, random_loger

from scal3r_ros.config import ChunkConfig, MemoryConfig, ModelConfig
from scal3r_ros.networks.loger.checkpoint import save_checkpoint
from scal3r_ros.reconstruct.loger.setup import open_loger


def save_loger(folder, architecture=SMALL) -> str:
    """Write a checkpoint; returns its path."""
    network = random_loger(architecture)
    head = network.point_head.proj
    patch = architecture.patch_size
    offsets = (torch.arange(patch) - (patch - 1) / 2) / patch
    head.weight *= 0.05
    head.bias.zero_()
    head.bias[: patch**2] = offsets.repeat(patch)
    head.bias[patch**2 : 2 * patch**2] = offsets.repeat_interleave(patch)
    save_checkpoint(network.state_dict(), architecture, folder, "net")
    return str(folder / "net.safetensors")


def loger(checkpoint, size=4, overlap=1, reset_every=0, mode="stream", **model):
    model = {"reconstructor": "loger", "checkpoint": checkpoint, "device": "cpu", **model}
    memory = MemoryConfig(mode=mode, reset_every=reset_every)
    return open_loger(ModelConfig(**model), memory, ChunkConfig(size=size, overlap=overlap))
