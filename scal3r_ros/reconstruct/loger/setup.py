"""From configuration to a ready LoGeR reconstructor: devices, number formats, weights."""

from __future__ import annotations

from pathlib import Path

import torch

from scal3r_ros.config import ChunkConfig, MemoryConfig, ModelConfig
from scal3r_ros.networks.loger.architecture import Numerics
from scal3r_ros.networks.loger.checkpoint import load_network
from scal3r_ros.networks.loger.placement import place
from scal3r_ros.reconstruct.devices import resolve_device, resolve_precision
from scal3r_ros.reconstruct.loger.reconstructor import LoGeRReconstructor, WindowSettings

WHERE = (
    "the authors publish no package of the weights: put latest.pt, and the yaml that came with it, "
    "into a folder and name the file in model.checkpoint (docs/loger.md)"
)


def open_loger(model: ModelConfig, memory: MemoryConfig, chunk: ChunkConfig) -> LoGeRReconstructor:
    """Load the configured checkpoint onto the configured devices."""
    check_options(model, memory)
    devices = resolve_devices(model)
    if model.threads:
        torch.set_num_threads(model.threads)
    numerics = Numerics(
        blocks=resolve_precision(model.precision, devices[0]),
        newton_schulz=model.newton_schulz,
        token_slice=model.token_slice,
        head_batch=model.head_batch,
    )
    first = devices[0] if len(devices) == 1 else "cpu"
    loaded = load_network(model.checkpoint, model.reconstructor, numerics, first, model.sha256)
    stages = place(loaded.network, devices) if len(devices) > 1 else []
    settings = WindowSettings(
        chunk.size,
        chunk.overlap,
        memory.reset_every,
        memory.mode == "stream",
        model.image_size,
        model.point_head,
    )
    return LoGeRReconstructor(loaded, settings, stages)


def check_options(model: ModelConfig, memory: MemoryConfig) -> None:
    """Refuse what has no meaning for this network."""
    if not model.checkpoint:
        raise ValueError(f"model.reconstructor {model.reconstructor} needs weights; {WHERE}")
    if not Path(model.checkpoint).expanduser().exists():
        raise ValueError(f"model.checkpoint {model.checkpoint} does not exist; {WHERE}")
    if memory.mode not in ("stream", "off"):
        raise ValueError(
            f"memory.mode {memory.mode} needs a memory that is a sum over chunks; that of "
            f"{model.reconstructor} goes from one chunk to the next, set it to stream, which is "
            f"the released offline algorithm too, or to off"
        )


def resolve_devices(model: ModelConfig) -> list[torch.device]:
    """`model.devices`, or `model.device` alone."""
    names = [name.strip() for name in model.devices.split(",") if name.strip()]
    if not names:
        return [resolve_device(model.device)]
    return [resolve_device(name, "model.devices") for name in names]
