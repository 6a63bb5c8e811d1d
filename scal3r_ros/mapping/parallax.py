"""Parallax gate: a camera that does not move adds nothing to the map."""

from __future__ import annotations

import numpy as np
from scipy import fft

from scal3r_ros.config import GateConfig

TILED_WIDTH = 192
"""Width of the grey thumbnail on which motion is measured, pixels."""
TILE = 48
"""Edge of the tiles whose motion is measured one by one, pixels."""
SAME_GREY = 4.0
"""Mean difference below which two tiles are the same up to noise, of 255."""
MIN_LIKENESS = 0.6
"""Correlation that two tiles must reach after shifting, or they show different things."""


class ParallaxGate:
    """Keeps a frame when the image has moved since the last kept one, or after `max_interval`."""

    def __init__(self, config: GateConfig) -> None:
        self.config = config
        self._kept: np.ndarray | None = None
        self._kept_ns = 0

    def reset(self) -> None:
        self._kept = None

    def state(self) -> tuple[np.ndarray | None, int]:
        """Thumbnail and stamp of the last kept frame, to save and restore."""
        return self._kept, self._kept_ns

    def restore(self, kept: np.ndarray | None, kept_ns: int) -> None:
        self._kept, self._kept_ns = kept, kept_ns

    def admit(self, rgb: np.ndarray, stamp_ns: int = 0) -> bool:
        """Judge the next image, (H, W, 3) uint8."""
        if self.config.min_parallax <= 0:
            return True
        image = thumbnail(rgb)
        waited = (stamp_ns - self._kept_ns) * 1e-9
        overdue = 0 < self.config.max_interval <= waited
        kept = self._kept
        if (
            kept is None
            or kept.shape != image.shape
            or overdue
            or image_motion(kept, image) >= self.config.min_parallax
        ):
            self._kept, self._kept_ns = image, stamp_ns
            return True
        return False


def thumbnail(rgb: np.ndarray) -> np.ndarray:
    """Grey image (h, TILED_WIDTH) float32 by averaging blocks of pixels."""
    height, width = rgb.shape[:2]
    step = max(1, width // TILED_WIDTH)
    rows, columns = height // step * step, width // step * step
    grey = rgb[:rows, :columns].astype(np.float32).mean(axis=2)
    return grey.reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))


def image_motion(before: np.ndarray, after: np.ndarray) -> float:
    """Median displacement of textured tiles as a share of the image width.

    Each tile's displacement is the peak of its phase correlation, good up to half a tile. A tile
    that does not look alike after shifting it by the peak has moved farther than that and counts
    with its whole edge.
    """
    first, second = _tiles(before), _tiles(after)
    textured = np.minimum(first.std(axis=(1, 2)), second.std(axis=(1, 2))) > 2.0
    if not textured.any():
        return 0.0 if np.abs(before - after).mean() < SAME_GREY else 1.0
    first, second = first[textured], second[textured]
    shifts = _correlate(first, second)
    moved = np.linalg.norm(shifts, axis=1)
    for i, (tile, other) in enumerate(zip(first, second)):
        if np.abs(tile - other).mean() < SAME_GREY:
            moved[i] = min(moved[i], 1.0)
        elif _likeness(tile, other, np.rint(shifts[i]).astype(int)) < MIN_LIKENESS:
            moved[i] = tile.shape[0]
    return float(np.median(moved) / before.shape[1])


def _tiles(image: np.ndarray) -> np.ndarray:
    """Overlapping square tiles (T, edge, edge)."""
    edge = min(TILE, *image.shape)
    rows = np.unique(np.linspace(0, image.shape[0] - edge, 1 + image.shape[0] // edge).astype(int))
    cols = np.unique(np.linspace(0, image.shape[1] - edge, 1 + image.shape[1] // edge).astype(int))
    return np.stack([image[r : r + edge, c : c + edge] for r in rows for c in cols])


def _correlate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Displacements (T, 2), rows and columns, of the tiles by phase correlation with sub-pixel
    peaks."""
    edge = first.shape[1]
    window = np.outer(np.hanning(edge), np.hanning(edge)).astype(np.float32)
    spectra = [fft.fft2((t - t.mean(axis=(1, 2), keepdims=True)) * window) for t in (first, second)]
    cross = np.conj(spectra[0]) * spectra[1]
    surface = fft.ifft2(cross / np.maximum(np.abs(cross), 1e-3)).real
    best = surface.reshape(len(first), -1).argmax(axis=1)
    rows, columns = best // edge, best % edge
    tile = np.arange(len(first))
    down = _refine(surface[tile, (rows + d) % edge, columns] for d in (-1, 0, 1)) + rows
    right = _refine(surface[tile, rows, (columns + d) % edge] for d in (-1, 0, 1)) + columns
    shift = np.stack([down, right], axis=1)
    return np.where(shift > edge / 2, shift - edge, shift)


def _likeness(tile: np.ndarray, other: np.ndarray, shift: np.ndarray) -> float:
    """Correlation coefficient of what both tiles show if `other` is `tile` moved by `shift`."""
    height, width = tile.shape
    rows, columns = int(shift[0]), int(shift[1])
    top, left = max(0, -rows), max(0, -columns)
    bottom, right = height - max(0, rows), width - max(0, columns)
    seen = tile[top:bottom, left:right]
    again = other[top + rows : bottom + rows, left + columns : right + columns]
    seen, again = seen - seen.mean(), again - again.mean()
    size = np.sqrt((seen**2).sum() * (again**2).sum())
    return float((seen * again).sum() / size) if size > 0 else 0.0


def _refine(samples) -> np.ndarray:
    """Offset of the weighted centre of three samples around a peak."""
    left, centre, right = (np.maximum(sample, 0.0) for sample in samples)
    return (right - left) / np.maximum(left + centre + right, 1e-9)
