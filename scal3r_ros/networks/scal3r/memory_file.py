"""The memory on disk: a safetensors file that names its format and the weights it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from scal3r_ros.files import write_bytes
from scal3r_ros.networks.fast_weights import FastWeights
from scal3r_ros.networks.scal3r.memory import ContextMemory

_FORMAT, _VERSION = "scal3r-memory", "1"


def save_memory(path: str | Path, memory: ContextMemory, fingerprint: str) -> None:
    """Write `memory`, made with the weights of `fingerprint`, completely or not at all."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in memory.state_dict().items()}
    metadata = {"format": _FORMAT, "version": _VERSION, "fingerprint": fingerprint}
    write_bytes(path, save(tensors, metadata))


def load_memory(
    path: str | Path,
    memory: ContextMemory,
    fingerprint: str,
    expected: Mapping[int, FastWeights],
) -> None:
    """Replace `memory` by a file's; `ValueError` and no change if the file is damaged, of another
    format, or belongs to other weights. `expected`: `Scal3R.memory_shapes()`."""
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: no readable memory file ({error})") from error
    if (metadata.get("format"), metadata.get("version")) != (_FORMAT, _VERSION):
        raise ValueError(
            f"{path}: expected a {_FORMAT} file of version {_VERSION}, found "
            f"{metadata.get('format')} version {metadata.get('version')}"
        )
    check_fingerprint(metadata.get("fingerprint", ""), fingerprint, str(path))
    memory.load_state_dict(tensors, expected)


def check_fingerprint(found: str, expected: str, name: str) -> None:
    """Refuse the memory of another checkpoint."""
    if found != expected:
        raise ValueError(
            f"{name} belongs to weights {found[:12] or 'unknown'}, this network has "
            f"{expected[:12]}; load the checkpoint it was made with, or reset the memory"
        )
