"""Weights of the CUT3R family: found by the user, read safely, loaded strictly.

The public weights may not be used commercially: they are never bundled or downloaded, and
loading them logs a warning.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from scal3r_ros.networks.checkpoint import (
    CheckpointError,
    Contents,
    fill,
    parsed_architecture,
    read_contents,
    write_contents,
)
from scal3r_ros.networks.mem3r.architecture import CUT3R_224, CUT3R_512, Architecture
from scal3r_ros.networks.mem3r.foreign_pickle import read_foreign
from scal3r_ros.networks.mem3r.network import Mem3R

NAME = "mem3r"
LICENCE = (
    "the public CUT3R weights are licensed CC BY-NC-SA 4.0: no commercial use, and what is derived "
    "from them is shared under the same terms"
)
_FOREIGN = (".pth", ".pt")


def load_network(
    path: str | Path, device: torch.device | str = "cpu", encoder_half_rope: bool | None = None
) -> Mem3R:
    """Build the network that a file belongs to and load it strictly, in float32, for evaluation.

    `.pth` is a published checkpoint, whose size its keys tell; `.safetensors` is one of ours or a
    converted one and says its own. `encoder_half_rope` replaces that of the architecture.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint; give a .pth or .safetensors file (the public weights of "
            f"CUT3R are not fetched for you)"
        )
    tensors, architecture = _read(path)
    if encoder_half_rope is not None:
        values = {**vars(architecture), "encoder_half_rope": encoder_half_rope}
        architecture = Architecture.from_dict(values)
    with torch.device("meta"):
        network = Mem3R(architecture)
    fill(network, tensors, device, str(path))
    return network


def convert(path: str | Path, folder: str | Path, name: str) -> list[Path]:
    """Write a published `.pth` file as `name.safetensors`, which holds nothing but numbers."""
    tensors, architecture = _read(Path(path).expanduser())
    return write_contents(Contents(tensors, NAME, architecture.to_json()), folder, name)


def _read(path: Path) -> tuple[dict[str, Tensor], Architecture]:
    if path.suffix in _FOREIGN:
        logging.getLogger(__name__).warning("%s: %s", path.name, LICENCE)
        tensors = read_foreign(path, "model")
        return tensors, _public_architecture(tensors)
    contents = read_contents([path])
    known = parsed_architecture(contents, NAME, Architecture.from_json, str(path))
    architecture = known or _public_architecture(contents.tensors)
    if architecture in (CUT3R_512, CUT3R_224):
        logging.getLogger(__name__).warning("%s: %s", path.name, LICENCE)
    return contents.tensors, architecture


def _public_architecture(tensors: dict[str, Tensor]) -> Architecture:
    """The two public sizes differ in their heads."""
    linear = any(key.startswith("downstream_head.proj.") for key in tensors)
    return CUT3R_224 if linear else CUT3R_512
