"""What every source of frames offers: images in order of time, decoded only when asked for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from scal3r_ros.files import open_regular
from scal3r_ros.io.stretch import Stretch
from scal3r_ros.records import Frame

_SAMPLE = 65536
"""Bytes of a file's beginning and end that tell it from others."""


class BadInput(ValueError):
    """The input cannot be used (further); the message names the file, what was found and what to
    do."""


@dataclass(frozen=True)
class SourceImage:
    """One image of a source, not yet decoded, so that the frame gate can refuse it for free."""

    id: int
    """Position in the source; frames that the mapper gets are numbered after the gate."""
    stamp_ns: int
    decode: Callable[[], Frame]
    """Decodes and rectifies; raises `BadInput`. Call before asking for the next image."""


class FrameSource(Protocol):
    """Images in order of time."""

    description: str
    """For the report: what is read, and where stamps and intrinsics come from."""
    files: tuple[Path, ...]
    """What is read, for `content_of`."""
    stretch: Stretch
    """Of images of more than 8 bits; what it has learnt is saved with a run and resumed."""

    def __len__(self) -> int:
        """Number of images, 0 when it is not known in advance."""

    def __iter__(self) -> Iterator[SourceImage]:
        """Images from the start; may be called again. Raises `BadInput`."""


class SizeCheck:
    """Refuses an image whose size differs from the usual one, which is the first one's unless
    told."""

    def __init__(self, usual: tuple[int, int] | None = None) -> None:
        self._usual = usual
        self._whose = "most images are"

    def __call__(self, rgb: np.ndarray, name: str) -> np.ndarray:
        """Return `rgb` (H, W, 3) if it has the usual size; raises `BadInput`."""
        size = (rgb.shape[1], rgb.shape[0])
        if self._usual is None:
            self._usual, self._whose = size, f"{name} is"
        if size != self._usual:
            width, height = self._usual
            raise BadInput(
                f"{name} is {size[0]} x {size[1]}, but {self._whose} {width} x {height}; all "
                f"images must have one size"
            )
        return rgb


def most_common(sizes: Iterable[tuple[int, int] | None]) -> tuple[int, int] | None:
    """(width, height) of most of the images that tell theirs, so that an odd one at the start is
    the odd one; None if none tells."""
    counts = Counter(size for size in sizes if size is not None)
    return counts.most_common(1)[0][0] if counts else None


def content_of(files: Iterable[Path]) -> str:
    """Hash of where files are, how long they are, and how each begins and ends: tells another
    recording from the same one without reading all of it."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.absolute()} {size}\n".encode())
        with open_regular(path) as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()
