"""Where a network runs and in which number format; what happens when it does not fit there."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from scal3r_ros.reconstruct.interface import OutOfDeviceMemory


def resolve_device(name: str, option: str = "model.device") -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` to a device that exists; `option` is named in errors."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{option} must be auto, cpu, cuda or cuda:N, found {name}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{option} is {name}, but {torch.cuda.device_count()} CUDA devices are visible; "
            f"use cpu or auto"
        )
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Format of a network's blocks; `auto` is bfloat16 where the device computes in it."""
    if name != "auto":
        return name
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bfloat16" if fast else "float32"


@contextmanager
def naming_lack_of_memory(
    device: torch.device, what: Callable[[], str], release: Callable[[], None]
) -> Iterator[None]:
    """Raise `OutOfDeviceMemory` saying `what` did not fit, after freeing what the failed attempt
    held: `release` drops the references that others keep."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        text = what()
        release()
        traceback.clear_frames(error.__traceback__)
        torch.cuda.empty_cache()
        raise OutOfDeviceMemory(
            f"{text} do not fit into the memory of {device} ({error}); lower chunk.size, "
            f"model.image_size, model.token_slice or model.head_batch"
        ) from error
