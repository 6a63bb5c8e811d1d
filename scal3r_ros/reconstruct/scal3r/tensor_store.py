"""Tensors that wait on the host; beyond a limit they wait on disk."""

from __future__ import annotations

import io
from collections.abc import Hashable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from scal3r_ros.files import check_archive, explained, link_or_copy, write_bytes
from scal3r_ros.scratch import ScratchFolder

Tensors = Mapping[str, Tensor]


class TensorStore:
    """Groups of named tensors by key, bit for bit as they were put.

    A group stays in memory if it fits below `max_bytes` when it is put. Groups are used in turns,
    so that it would be the wrong ones that a cache of the latest keeps.
    """

    def __init__(self, max_bytes: float, folder: Path | None = None) -> None:
        """Files go to a folder of their own below `folder`, or where the system keeps temporary
        ones; it exists while it is needed."""
        self.max_bytes = max_bytes
        self._parent = folder
        self._resident: dict[Hashable, Tensors] = {}
        self._spilled: dict[Hashable, Path] = {}
        self._files = 0
        self._temporary: ScratchFolder | None = None

    def __contains__(self, key: Hashable) -> bool:
        return key in self._resident or key in self._spilled

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(_size(tensors) for tensors in self._resident.values())

    @property
    def spilled(self) -> int:
        """Number of groups on disk."""
        return len(self._spilled)

    def put(self, key: Hashable, tensors: Tensors) -> None:
        """Keep or replace a group; raises `SaveFailed` if the disk cannot take it."""
        self.drop(key)
        here = {name: tensor.detach().to("cpu") for name, tensor in tensors.items()}
        if self.nbytes + _size(here) <= self.max_bytes:
            self._resident[key] = here
        else:
            self._spilled[key] = self._write(here)

    def get(self, key: Hashable) -> Tensors:
        """A group, on the CPU; not to be written to."""
        if key in self._resident:
            return self._resident[key]
        return torch.load(self._spilled[key], map_location="cpu", weights_only=True)

    def copy_to(self, key: Hashable, path: Path) -> None:
        """Put a group into a file that outlives this store; what is on disk takes no more of it.
        Raises `SaveFailed`."""
        if key in self._spilled:
            link_or_copy(self._spilled[key], path)
        else:
            write_bytes(path, _packed(self._resident[key]))

    def adopt(self, key: Hashable, path: Path) -> None:
        """Take a group from a file of `copy_to`; it stays on disk, and `path` may go. Raises
        `BadArchive`."""
        check_archive(path)
        self.drop(key)
        own = self._new_file()
        link_or_copy(path, own)
        self._spilled[key] = own

    def drop(self, key: Hashable) -> None:
        """Forget a group, if it is there."""
        self._resident.pop(key, None)
        if key in self._spilled:
            self._spilled.pop(key).unlink(missing_ok=True)
        if not self._spilled and self._temporary is not None:
            self._temporary.remove()
            self._temporary = None

    def _write(self, tensors: Tensors) -> Path:
        path = self._new_file()
        write_bytes(path, _packed(tensors))
        return path

    def _new_file(self) -> Path:
        self._files += 1
        return self._folder() / f"{self._files:08d}.pt"

    def _folder(self) -> Path:
        if self._temporary is None:
            with explained(self._parent or Path("the folder for temporary files")):
                if self._parent is not None:
                    self._parent.mkdir(parents=True, exist_ok=True)
                self._temporary = ScratchFolder("chunks_", self._parent)
        return self._temporary.path


def _packed(tensors: Tensors) -> bytes:
    buffer = io.BytesIO()
    # Clones: of a view the whole tensor behind it would be saved.
    torch.save({name: tensor.clone() for name, tensor in tensors.items()}, buffer)
    return buffer.getvalue()


def _size(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
