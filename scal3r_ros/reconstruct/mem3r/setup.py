"""From configuration to a ready reconstructor of the CUT3R family."""

from __future__ import annotations

from pathlib import Path

import torch

from scal3r_ros.config import ChunkConfig, MemoryConfig, ModelConfig
from scal3r_ros.networks.checkpoint import checked_fingerprint
from scal3r_ros.networks.mem3r.checkpoint import load_network
from scal3r_ros.reconstruct.devices import resolve_device
from scal3r_ros.reconstruct.mem3r.options import check_options
from scal3r_ros.reconstruct.mem3r.reconstructor import Mem3RReconstructor, RecurrenceSettings


def open_mem3r(model: ModelConfig, memory: MemoryConfig, chunk: ChunkConfig) -> Mem3RReconstructor:
    """Load the configured checkpoint; that of the public weights says its licence."""
    check_options(model, memory)
    if model.threads:
        torch.set_num_threads(model.threads)
    path = Path(model.checkpoint).expanduser()
    fingerprint = checked_fingerprint([path], model.sha256, str(path))
    network = load_network(path, resolve_device(model.device))
    settings = RecurrenceSettings(
        model.state_rule,
        chunk.overlap,
        memory.reset_every,
        memory.mode == "stream",
        model.image_size,
    )
    return Mem3RReconstructor(network, fingerprint, settings)
