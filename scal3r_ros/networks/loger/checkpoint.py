"""Weights of LoGeR and LoGeR* on disk, and the small yaml that lies beside a released checkpoint.

A released `.pt` file does not tell its architecture; which of the two networks it is shows in its
tensors. A safetensors file of ours tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scal3r_ros.networks.checkpoint import (
    CheckpointError,
    Contents,
    checked_fingerprint,
    checkpoint_files,
    fill,
    parsed_architecture,
    read_contents,
    write_contents,
)
from scal3r_ros.networks.loger.architecture import PRESETS, Architecture, Numerics
from scal3r_ros.networks.loger.network import LoGeR
from scal3r_ros.texts import BadText, read_yaml

_NETWORK, _WRAPPER, _PREFIX = "loger", "model_state_dict", "module."
_ABSENT: Mapping[str, Any] = {
    "ttt_head_dim": 512,
    "ttt_inter_multi": 2,
    "ttt_pre_norm": False,
}
"""What the release takes for a key that its yaml leaves out."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with weights, in evaluation mode and without gradients."""

    network: LoGeR
    fingerprint: str
    """sha256 of the checkpoint file; of the list of the shards' own when there are several."""


def load_network(
    path: str | Path,
    variant: str,
    numerics: Numerics | None = None,
    device: torch.device | str = "cpu",
    sha256: str = "",
    architecture: Architecture | None = None,
) -> LoadedNetwork:
    """Build the network that a checkpoint belongs to and load it strictly, in float32.

    `variant` is what the user expects, `loger` or `loger-star`; the other one is refused.
    `architecture` is that of files that do not tell, by default the released size.
    """
    files = checkpoint_files(path)
    fingerprint = checked_fingerprint(files, sha256, str(path))
    state, stored = read_state(path)
    found = stored or _released(state, architecture or PRESETS[variant], variant, files[0])
    if found.variant != variant:
        raise CheckpointError(
            f"{path} holds weights of {found.variant}, model.reconstructor is {variant}; set it to "
            f"{found.variant}, or name another checkpoint"
        )
    with torch.device("meta"):
        network = LoGeR(found, numerics)
    fill(network, state, device, str(path))
    return LoadedNetwork(network, fingerprint)


def read_state(path: str | Path) -> tuple[dict[str, Tensor], Architecture | None]:
    """Tensors by key, and the architecture if the files tell it."""
    contents = read_contents(checkpoint_files(path), _WRAPPER)
    parsed = parsed_architecture(contents, _NETWORK, Architecture.from_json, str(path))
    return {k.removeprefix(_PREFIX): v for k, v in contents.tensors.items()}, parsed


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


def read_settings(checkpoint: Path) -> tuple[Path, dict[str, Any]] | None:
    """The settings that lie beside a checkpoint, if any: those entries of the section `model` that
    shape the network, and `se3`, which the release reads there or at the top."""
    known = {"ttt_insert_after", "attn_insert_after", "se3", *_ABSENT}
    found = {}
    for path in sorted((*checkpoint.parent.glob("*.yaml"), *checkpoint.parent.glob("*.yml"))):
        content = _parsed(path)
        model = content.get("model")
        if not isinstance(model, Mapping) or not any(k.startswith("ttt_") for k in model):
            continue  # of something else
        found[path] = {"se3": content["se3"]} if "se3" in content else {}
        found[path] |= {key: value for key, value in model.items() if key in known}
        _check_se3(path, content, model)
    if len(found) > 1:
        found = {path: values for path, values in found.items() if path.stem == checkpoint.stem}
        if not found:
            raise CheckpointError(
                f"{checkpoint.parent} holds several yaml files of networks; name the right one "
                f"{checkpoint.stem}.yaml"
            )
    return next(iter(found.items()), None)


def _released(
    state: Mapping[str, Tensor], size: Architecture, variant: str, checkpoint: Path
) -> Architecture:
    """The architecture of a file that does not tell it: a known size, with what the tensors show,
    which the yaml must not contradict."""
    pre_norm = any(key.endswith("pre_norm.weight") for key in state)
    shown = replace(size, ttt_pre_norm=pre_norm)
    found = read_settings(checkpoint)
    if found is None:
        return shown
    path, given = found
    values: dict[str, Any] = {**_ABSENT, "se3": False, **given}
    values.setdefault("ttt_insert_after", size.ttt_insert_after)
    values.setdefault("attn_insert_after", values["ttt_insert_after"])
    try:
        wanted = replace(shown, **values)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    _check_against_tensors(path, wanted, state)
    return wanted


def _check_against_tensors(path: Path, wanted: Architecture, state: Mapping[str, Tensor]) -> None:
    """The yaml and the tensors tell one network."""
    first = state.get("ttt_layers.0.w0")
    shown = {
        "ttt_pre_norm": any(key.endswith("pre_norm.weight") for key in state),
        "ttt_insert_after": _count(state, "ttt_layers"),
        "attn_insert_after": _count(state, "swa_layers"),
    }
    if first is not None and first.ndim == 3:
        shown["ttt_head_dim"] = first.shape[1]
        shown["ttt_inter_multi"] = first.shape[2] // max(1, first.shape[1])
    for name, found in shown.items():
        value = getattr(wanted, name)
        said = len(value) if isinstance(value, tuple) else value
        if said != found:
            layers = " layers" if isinstance(value, tuple) else ""
            raise CheckpointError(
                f"{path} contradicts the checkpoint beside it: {name} is {said}{layers} there, the "
                f"tensors show {found}; put the yaml that belongs to the checkpoint in its place, "
                f"or remove it"
            )


def _count(state: Mapping[str, Tensor], name: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{name}.")})


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        content = read_yaml(path)
    except BadText as error:
        raise CheckpointError(f"the file beside the checkpoint: {error}") from error
    return content if isinstance(content, Mapping) else {}


def _check_se3(path: Path, content: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    both = {str(section["se3"]) for section in (content, model) if "se3" in section}
    if len(both) > 1:
        raise CheckpointError(f"{path}: se3 is {' and '.join(sorted(both))}; keep one of them")
