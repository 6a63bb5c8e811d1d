"""From configuration to a ready LoGeR reconstructor: devices, number formats, weights."""

from __future__ import annotations

import torch

from scal3r_ros.config import ChunkConfig, MemoryConfig, ModelConfig
from scal3r_ros.networks.loger.architecture import Numerics
from scal3r_ros.networks.loger.checkpoint import load_network
from scal3r_ros.networks.loger.placement import place
from scal3r_ros.reconstruct.devices import resolve_device, resolve_precision
from scal3r_ros.reconstruct.loger.options import check_options
from scal3r_ros.reconstruct.loger.reconstructor import LoGeRReconstructor, WindowSettings


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


def resolve_devices(model: ModelConfig) -> list[torch.device]:
    """`model.devices`, or `model.device` alone."""
    names = [name.strip() for name in model.devices.split(",") if name.strip()]
    if not names:
        return [resolve_device(model.device)]
    return [resolve_device(name, "model.devices") for name in names]
