"""Image sizes of a live stream: one odd image is left out, a camera that changes its size is
followed."""

from __future__ import annotations

import numpy as np

from scal3r_ros.io.source import BadInput

_LASTING = 3
"""Images of a new size in a row that are a camera set otherwise."""


class SizeChange:
    """The size of a stream's images."""

    def __init__(self) -> None:
        self._usual: tuple[int, int] | None = None
        self._other, self._seen = (0, 0), 0

    def __call__(self, rgb: np.ndarray) -> bool:
        """Whether the images (H, W, 3) have another size from this one on, so that a new part of
        the map begins; raises `BadInput` for an odd one."""
        size = (rgb.shape[1], rgb.shape[0])
        if self._usual in (None, size):
            self._usual, self._seen = size, 0
            return False
        self._seen = self._seen + 1 if size == self._other else 1
        self._other = size
        if self._seen >= _LASTING:
            self._usual, self._seen = size, 0
            return True
        width, height = self._usual or size
        raise BadInput(
            f"image is {size[0]} x {size[1]}, but those before are {width} x {height}; if the next "
            f"ones are too, a new part of the map begins"
        )
