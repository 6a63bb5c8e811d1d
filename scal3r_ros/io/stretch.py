"""Images of more than 8 bits to 8: thermal, 10 or 12 bits in 16, floats.

The high byte of 12 bits in 16 is almost black. The range between two percentiles becomes 0 to 255
instead: an average over the first images, which then follows slowly, so that a surface keeps its
brightness from one image to the next and features match.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_PERCENTILES = (0.5, 99.5)
_SLOWEST = 0.02
"""Weight of a new image once 50 are averaged."""
_SAMPLES = 20_000
"""Pixels whose percentiles stand for all."""


class Stretch:
    """The range of one stream of images."""

    def __init__(self) -> None:
        self._start: tuple[float, ...] = ()
        self.rewind()

    def rewind(self) -> None:
        """Back to the first image, or to where a resumed run goes on."""
        self._seen, self._floats = 0, False
        self._range: np.ndarray | None = None
        if self._start:
            seen, floats, *limits = self._start
            self._seen, self._floats, self._range = int(seen), bool(floats), np.array(limits)

    def state(self) -> list[float]:
        """What the images until now have told, for `resume`."""
        if self._range is None:
            return []
        return [float(self._seen), float(self._floats), *map(float, self._range)]

    def resume(self, state: Sequence[float]) -> None:
        """Go on from a saved state; raises `ValueError` if it is none."""
        numbers = tuple(float(value) for value in state)
        if len(numbers) not in (0, 4) or not np.isfinite(numbers).all():
            raise ValueError(f"{numbers} is no range of brightness")
        self._start = numbers
        self.rewind()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 of the same shape; uint8 stays as it is. Not finite values become 0."""
        if pixels.dtype == np.uint8:
            return pixels
        self._follow(pixels)
        if self._range is None:
            return np.zeros(pixels.shape, np.uint8)
        low, high = self._range
        scaled = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        return np.clip(np.nan_to_num(scaled, posinf=255.0, neginf=0.0), 0, 255).astype(np.uint8)

    def _follow(self, pixels: np.ndarray) -> None:
        if self._floats != (pixels.dtype.kind == "f"):  # counts are of another size than floats
            self._seen, self._range, self._floats = 0, None, not self._floats
        flat = pixels.reshape(-1)[:: max(1, pixels.size // _SAMPLES)].astype(np.float64)
        known = flat[np.isfinite(flat)]
        if not len(known):
            return
        low, high = np.percentile(known, _PERCENTILES)
        now = np.array([low, max(high, low + 1e-9 + 1e-6 * abs(low))])
        self._seen += 1
        weight = max(1 / self._seen, _SLOWEST)
        self._range = now if self._range is None else (1 - weight) * self._range + weight * now
