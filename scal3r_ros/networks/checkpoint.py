"""Checkpoint files of any network: find, verify, read and write tensors by name.

`.pt` files are read with torch's restricted unpickler, `.safetensors` files hold nothing but
numbers: nothing from a checkpoint is ever executed. A safetensors file may be split into shards,
and may carry in its metadata the name of its network and its architecture as JSON.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scal3r_ros.files import write_bytes

_ARCHITECTURE, _NETWORK = "architecture", "network"
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$")

_TIED = 4
"""How often a file's numbers may be used: networks share some tensors under several names."""
UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""What the restricted unpicklers raise on bytes that nobody wrote with `torch.save`."""

_Architecture = TypeVar("_Architecture")


class CheckpointError(ValueError):
    """A checkpoint is absent, damaged, or does not fit the network."""


@dataclass(frozen=True)
class Contents:
    """What the files of a checkpoint hold."""

    tensors: dict[str, Tensor]
    network: str = ""
    """Name of the network that the files belong to, empty if they do not say."""
    architecture: str = ""
    """JSON, empty if the files do not say."""


def checkpoint_files(path: str | Path) -> list[Path]:
    """The file, or all shards in order, that `path` stands for: a `.pt` or `.safetensors` file,
    one shard, or a folder with one checkpoint."""
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
            f"`scal3r download` for the official one"
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


def checked_fingerprint(files: Iterable[Path], sha256: str, name: str) -> str:
    """The fingerprint, which has to be `sha256` unless that is empty."""
    fingerprint = file_fingerprint(files)
    if sha256 and fingerprint != sha256.lower():
        raise CheckpointError(
            f"{name}: sha256 is {fingerprint}, expected {sha256.lower()}; the file is damaged or "
            f"another one, fetch it again"
        )
    return fingerprint


def read_contents(files: Iterable[Path], wrapper: str = "") -> Contents:
    """Tensors by key and what the files say of themselves. A `.pt` file may hold its tensors under
    the key `wrapper`."""
    tensors: dict[str, Tensor] = {}
    network = architecture = ""
    for path in files:
        part = _read_pickle(path, wrapper) if path.suffix == ".pt" else _read_safetensors(path)
        twice = sorted(tensors.keys() & part.tensors.keys())
        if twice:
            raise CheckpointError(f"{path}: keys are in two shards: {twice[:10]}")
        tensors |= part.tensors
        network, architecture = part.network or network, part.architecture or architecture
    return Contents(tensors, network, architecture)


def parsed_architecture(
    contents: Contents, network: str, parse: Callable[[str], _Architecture], name: str
) -> _Architecture | None:
    """The architecture that the files tell, None if they do not; refuses those of another
    network."""
    if contents.network not in ("", network):
        raise CheckpointError(
            f"{name} holds weights of {contents.network}, expected those of {network}; set "
            f"model.reconstructor to {contents.network}, or name another checkpoint"
        )
    if not contents.architecture:
        return None
    try:
        return parse(contents.architecture)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{name}: its architecture cannot be used: {error}") from error


def check_held(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that repeat few numbers until they are far larger than their file."""
    declared = sum(value.numel() * value.element_size() for value in tensors.values())
    held = path.stat().st_size
    if declared > _TIED * held:
        raise CheckpointError(f"{path}: declares tensors of {declared} bytes, but has {held}")


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


def fill(
    network: torch.nn.Module, state: Mapping[str, Tensor], device: torch.device | str, name: str
) -> None:
    """Give a network that was made on the meta device its weights, strictly and in float32, and
    make it ready for evaluation. Raises `CheckpointError`; `name` is that of the files."""
    check_state(state, network.state_dict(), name)
    placed = {key: value.to(device, torch.float32) for key, value in state.items()}
    network.load_state_dict(placed, strict=True, assign=True)
    network.eval().requires_grad_(False)


def first_line(error: Exception) -> str:
    """The first line of a library's error message, which may be pages long."""
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def write_contents(
    contents: Contents,
    folder: str | Path,
    name: str,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int | None = None,
) -> list[Path]:
    """Write `name.safetensors`, or shards of at most about `shard_bytes` and their index.

    Every file carries network and architecture and appears complete or not at all.
    """
    folder = Path(folder)
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for key, value in contents.tensors.items():
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
    metadata = {_NETWORK: contents.network, _ARCHITECTURE: contents.architecture}
    for path, tensors in zip(paths, shards):
        write_bytes(path, save(tensors, metadata))
    if count > 1:
        places = {key: path.name for path, tensors in zip(paths, shards) for key in tensors}
        index = json.dumps({"weight_map": places}, indent=1) + "\n"
        write_bytes(folder / f"{name}.safetensors.index.json", index.encode())
    return paths


def _shard_name(stem: str, index: int, count: int) -> str:
    return f"{stem}-{index + 1:05d}-of-{count:05d}.safetensors"


def _read_pickle(path: Path, wrapper: str) -> Contents:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path}: cannot be read as plain weights; it is damaged, of torch before 1.6, or "
            f"holds objects other than tensors, which are never loaded"
        ) from error
    if isinstance(content, Mapping) and wrapper in content:
        content = content[wrapper]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected tensors by name, found {type(content).__name__}")
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path}: entries that are no tensors: {others[:10]}")
    tensors = {str(key): value for key, value in content.items()}
    check_held(tensors, path)
    return Contents(tensors)


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as stream:
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
            metadata = stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or no safetensors file ({error})") from error
    return Contents(tensors, metadata.get(_NETWORK, ""), metadata.get(_ARCHITECTURE, ""))
