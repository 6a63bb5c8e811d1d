"""Checkpoints that hold more than tensors, read without running anything of what they name.

The published files of this family are pickles with the tensors beside the settings of a training
run, objects of classes that may be anything. Tensors are rebuilt; every other class is replaced by
an empty one that takes what it is given and does nothing.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from scal3r_ros.networks.checkpoint import UNREADABLE, CheckpointError, check_held, first_line

_REBUILDING = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("collections", "OrderedDict"),
}
"""All that tensors need; neither runs code of the file."""


class Foreign(dict):
    """Stands for an object of the file that is not read."""

    def __new__(cls, *_: Any, **__: Any) -> Foreign:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Foreign:
        return Foreign()

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in _REBUILDING:
            return getattr(torch._utils, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return Foreign


def read_foreign(path: Path, wrapper: str, prefix: str = "module.") -> dict[str, Tensor]:
    """Tensors by name under the key `wrapper` of a file, without the `prefix` that training on
    several devices leaves. Raises `CheckpointError`."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: expected a file of torch.save (a zip archive); it is damaged or another one"
        )
    reader = SimpleNamespace(
        __name__="pickle", Unpickler=_TensorUnpickler, UnpicklingError=pickle.UnpicklingError
    )
    try:
        content = torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=reader, mmap=True
        )
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: cannot be read ({first_line(error)})") from error
    tensors = content.get(wrapper) if isinstance(content, Mapping) else None
    if not isinstance(tensors, Mapping):
        raise CheckpointError(f"{path}: expected tensors by name under the key {wrapper!r}")
    found = {str(k).removeprefix(prefix): v for k, v in tensors.items() if isinstance(v, Tensor)}
    if not found:
        raise CheckpointError(f"{path}: there are no tensors under the key {wrapper!r}")
    check_held(found, path)
    return found
