"""Weights of Scal3R on disk. A safetensors file tells its architecture; the official `.pt` file
does not, and is the full size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scal3r_ros.networks.checkpoint import (
    Contents,
    checked_fingerprint,
    checkpoint_files,
    fill,
    parsed_architecture,
    read_contents,
    write_contents,
)
from scal3r_ros.networks.scal3r.architecture import Architecture, Numerics
from scal3r_ros.networks.scal3r.key_selection import KeySelection
from scal3r_ros.networks.scal3r.network import Scal3R

EMBEDDED = Path(__file__).resolve().parent / "weights"
"""Folder of the small network that ships with the package."""
_NETWORK = "scal3r"


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with weights, in evaluation mode and without gradients."""

    network: Scal3R
    fingerprint: str
    """sha256 of the checkpoint file; of the list of the shards' own when there are several."""


def load_network(
    path: str | Path,
    architecture: Architecture | None = None,
    numerics: Numerics | None = None,
    device: torch.device | str = "cpu",
    sha256: str = "",
    keys: KeySelection | None = None,
) -> LoadedNetwork:
    """Build the network that a checkpoint belongs to and load it strictly, in float32.

    Without `architecture` it is taken from the file, or is the official one if the file does not
    say.
    """
    fingerprint = checked_fingerprint(checkpoint_files(path), sha256, str(path))
    state, stored = read_state(path)
    with torch.device("meta"):
        network = Scal3R(architecture or stored or Architecture(), numerics)
    network.agg_regator.keys = keys or KeySelection()
    fill(network, state, device, str(path))
    return LoadedNetwork(network, fingerprint)


def read_state(path: str | Path) -> tuple[dict[str, Tensor], Architecture | None]:
    """Tensors by key, and the architecture if the files tell it."""
    contents = read_contents(checkpoint_files(path))
    parsed = parsed_architecture(contents, _NETWORK, Architecture.from_json, str(path))
    return contents.tensors, parsed


def save_checkpoint(
    state: Mapping[str, Tensor],
    architecture: Architecture,
    folder: str | Path,
    name: str,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int | None = None,
) -> list[Path]:
    """Write `name.safetensors`, or shards of at most about `shard_bytes` and their index."""
    contents = Contents(dict(state), _NETWORK, architecture.to_json())
    return write_contents(contents, folder, name, dtype, shard_bytes)
