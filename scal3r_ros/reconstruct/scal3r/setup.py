"""From configuration to a ready Scal3R reconstructor: device, number formats, weights."""

from __future__ import annotations

from pathlib import Path

import torch

from scal3r_ros.config import MemoryConfig, ModelConfig
from scal3r_ros.io.download import OFFICIAL_FILE, default_path, download
from scal3r_ros.networks.scal3r.architecture import Numerics
from scal3r_ros.networks.scal3r.checkpoint import EMBEDDED, load_network
from scal3r_ros.networks.scal3r.key_selection import KeySelection
from scal3r_ros.reconstruct.devices import resolve_device, resolve_precision
from scal3r_ros.reconstruct.scal3r.reconstructor import Scal3RReconstructor


def open_scal3r(
    model: ModelConfig, memory: MemoryConfig, folder: Path | None = None
) -> Scal3RReconstructor:
    """Load the configured checkpoint onto the configured device; `folder` takes what does not fit
    into memory."""
    device = resolve_device(model.device)
    if threads := resolve_threads(model, device):
        torch.set_num_threads(threads)
    loaded = load_network(
        resolve_checkpoint(model),
        numerics=resolve_numerics(model, device),
        device=device,
        sha256=model.sha256,
        keys=KeySelection(model.acceleration, model.key_frames, model.key_grid),
    )
    return Scal3RReconstructor(loaded, memory, model.image_size, model.point_head, folder)


def resolve_threads(model: ModelConfig, device: torch.device) -> int:
    """CPU threads to set; 0 leaves the library's choice.

    A second thread gains the embedded network little on an idle machine and loses much on a busy
    one (docs/tuning.md).
    """
    embedded_on_cpu = device.type == "cpu" and not model.checkpoint
    return model.threads or int(embedded_on_cpu)


def resolve_numerics(model: ModelConfig, device: torch.device) -> Numerics:
    """Number formats; `auto` is bfloat16 where the device computes in it."""
    return Numerics(
        blocks=resolve_precision(model.precision, device),
        newton_schulz=model.newton_schulz,
        token_slice=model.token_slice,
        head_batch=model.head_batch,
    )


def resolve_checkpoint(model: ModelConfig) -> Path:
    """The configured file, fetched if that is allowed; the embedded one if none is configured."""
    if not model.checkpoint:
        return EMBEDDED
    path = Path(model.checkpoint).expanduser()
    if not path.exists() and path.name == OFFICIAL_FILE:
        if default_path().exists():
            return default_path()
        if model.allow_download:
            return download()
    return path
