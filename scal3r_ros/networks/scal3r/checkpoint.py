"""Checkpoints: find, verify, read and write the weights of a network.

`.pt` files are read with torch's restricted unpickler, `.safetensors` files hold nothing but
numbers: nothing from a checkpoint is ever executed. A safetensors file may be split into shards,
and may carry its architecture as JSON in its metadata; the published `.pt` file does not, and is
the full size.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scal3r_ros.networks.scal3r.architecture import Architecture, Numerics
from scal3r_ros.networks.scal3r.network import Scal3R

EMBEDDED = Path(__file__).resolve().parent / "weights"
"""Folder of the small network that ships with the package."""
_METADATA_KEY = "architecture"
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$")


class CheckpointError(ValueError):
    """A checkpoint is absent, damaged, or does not fit the network."""


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
) -> LoadedNetwork:
    """Build the network that a checkpoint belongs to and load it strictly, in float32.

    `path` is a `.pt` or `.safetensors` file, one shard, or a folder with one checkpoint. Without
    `architecture` it is taken from the file, or is the published one if the file does not say.
    """
    files = checkpoint_files(path)
    fingerprint = file_fingerprint(files)
    if sha256 and fingerprint != sha256.lower():
        raise CheckpointError(
            f"{path}: sha256 is {fingerprint}, expected {sha256.lower()}; the file is damaged or "
            f"another one, fetch it again"
        )
    state, stored = read_state(files)
    with torch.device("meta"):
        network = Scal3R(architecture or stored or Architecture(), numerics)
    check_state(state, network.state_dict(), str(path))
    state = {key: value.to(device, torch.float32) for key, value in state.items()}
    network.load_state_dict(state, strict=True, assign=True)
    network.eval().requires_grad_(False)
    return LoadedNetwork(network, fingerprint)


def checkpoint_files(path: str | Path) -> list[Path]:
    """The file, or all shards in order, that `path` stands for."""
    path = Path(path).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pt"))
        stems = {m["stem"] if (m := _SHARD.match(p.name)) else p.name for p in found}
        if len(stems) != 1:
            raise CheckpointError(f"{path}: expected one checkpoint, found {sorted(stems)}")
        path = found[0]
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint; give a .pt or .safetensors file, or run "
            f"`scal3r download` for the published one"
        )
    if path.suffix not in (".pt", ".safetensors"):
        raise CheckpointError(f"{path}: expected a .pt or .safetensors file")
    match = _SHARD.match(path.name)
    if not match:
        return [path]
    count = int(match["count"])
    shards = [path.with_name(_shard_name(match["stem"], i, count)) for i in range(count)]
    absent = [p.name for p in shards if not p.is_file()]
    if absent:
        raise CheckpointError(f"{path}: shards are missing: {absent[:10]}")
    return shards


def file_fingerprint(files: Iterable[Path]) -> str:
    """sha256 of one file, or of the concatenated hexadecimal sums of several."""
    sums = []
    for path in files:
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
        sums.append(digest.hexdigest())
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def read_state(files: Iterable[Path]) -> tuple[dict[str, Tensor], Architecture | None]:
    """Tensors by key, and the architecture if the files tell it."""
    state: dict[str, Tensor] = {}
    architecture = None
    for path in files:
        if path.suffix == ".pt":
            tensors, text = _read_pickle(path), None
        else:
            tensors, text = _read_safetensors(path)
        twice = sorted(state.keys() & tensors.keys())
        if twice:
            raise CheckpointError(f"{path}: keys are in two shards: {twice[:10]}")
        state |= tensors
        architecture = _parse_architecture(path, text) or architecture
    return state, architecture


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> None:
    """Raise one error that lists what is missing, unexpected or of the wrong shape or type."""
    faults = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "wrong shape": [
            f"{key} {tuple(state[key].shape)}, expected {tuple(value.shape)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ],
        "not floating point": [
            f"{key} {value.dtype}" for key, value in state.items() if not value.is_floating_point()
        ],
    }
    found = [
        f"{len(keys)} {fault}: {', '.join(keys[:10])}{', ...' if len(keys) > 10 else ''}"
        for fault, keys in faults.items()
        if keys
    ]
    if found:
        raise CheckpointError(f"{name} does not fit the network; " + "; ".join(found))


def save_checkpoint(
    state: Mapping[str, Tensor],
    architecture: Architecture,
    folder: str | Path,
    name: str,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int | None = None,
) -> list[Path]:
    """Write `name.safetensors`, or shards of at most about `shard_bytes` and their index.

    Every file carries the architecture and appears complete or not at all.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for key, value in state.items():
        value = value.detach().to("cpu", dtype).contiguous()
        size = value.numel() * value.element_size()
        if shard_bytes and shards[-1] and used + size > shard_bytes:
            shards.append({})
            used = 0
        shards[-1][key] = value
        used += size
    count = len(shards)
    names = [_shard_name(name, i, count) for i in range(count)]
    paths = [folder / (n if count > 1 else f"{name}.safetensors") for n in names]
    for path, tensors in zip(paths, shards):
        write_atomically(path, save(tensors, {_METADATA_KEY: architecture.to_json()}))
    if count > 1:
        places = {key: path.name for path, tensors in zip(paths, shards) for key in tensors}
        index = json.dumps({"weight_map": places}, indent=1) + "\n"
        write_atomically(folder / f"{name}.safetensors.index.json", index.encode())
    return paths


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that a crash leaves either as it was or complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _shard_name(stem: str, index: int, count: int) -> str:
    return f"{stem}-{index + 1:05d}-of-{count:05d}.safetensors"


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as plain weights ({str(error).splitlines()[0]}); it is "
            f"damaged, or holds objects other than tensors, which are never loaded"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected tensors by name, found {type(content).__name__}")
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path}: entries that are no tensors: {others[:10]}")
    return dict(content)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(path, framework="pt") as stream:
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
            return tensors, (stream.metadata() or {}).get(_METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or no safetensors file ({error})") from error


def _parse_architecture(path: Path, text: str | None) -> Architecture | None:
    if text is None:
        return None
    try:
        return Architecture.from_json(text)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its architecture cannot be used: {error}") from error
