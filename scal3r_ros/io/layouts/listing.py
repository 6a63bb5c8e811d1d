"""What a layout tells: images with stamps, and their calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from scal3r_ros.io.calibration import Calibration
from scal3r_ros.io.image_files import list_images
from scal3r_ros.io.source import BadInput

ReadCalibration = Callable[[], Calibration | None]


@dataclass(frozen=True)
class DepthFiles:
    """Depth images that lie beside the images of a folder."""

    images: tuple[tuple[int, Path], ...]
    """Stamp in nanoseconds, and file."""
    name: str
    """Where they were found, for messages."""
    per_metre: float = 0.0
    """What one metre counts in this layout; 0 where the images must tell."""


@dataclass(frozen=True)
class Listing:
    """Images of a folder in order of time."""

    images: tuple[tuple[int, Path], ...]
    """Stamp in nanoseconds, and file."""
    stamps: str
    """For the report: where the stamps come from."""
    read_calibration: ReadCalibration | None = None
    """Reads the calibration that belongs to this layout; raises `BadInput`."""
    places: tuple[Path, ...] = ()
    """Folders in which a calibration of the user's may lie."""
    depth: DepthFiles | None = None


def at_rate(paths: Sequence[Path], rate: float) -> tuple[tuple[int, Path], ...]:
    """Images with made-up stamps, `rate` in Hz."""
    return tuple((round(n * 1_000_000_000 / rate), path) for n, path in enumerate(paths))


def made_up(rate: float) -> str:
    """How made-up stamps are reported."""
    return f"no stamps beside them, so stamps are made up at {rate:g} Hz"


def paired(stamps: Sequence[int], folder: Path, index: Path) -> tuple[tuple[int, Path], ...]:
    """The images of a folder with the stamps (nanoseconds) of a file that has one for each.

    With fewer images than stamps their numbers tell which is whose. Raises `BadInput`.
    """
    paths = list_images(folder).paths
    if len(paths) == len(stamps):
        return tuple(zip(stamps, paths))
    numbers = [int(path.stem) if path.stem.isdecimal() else -1 for path in paths]
    if not paths or min(numbers) < 0 or max(numbers) >= len(stamps):
        raise BadInput(
            f"{index} has {len(stamps)} stamps for the {len(paths)} images of {folder}; expected "
            f"one for each"
        )
    return tuple((stamps[number], path) for number, path in zip(numbers, paths))


def first_file(folders: Iterable[Path], names: Sequence[str]) -> Path | None:
    """The first of `names` that one of the folders has."""
    return next((d / n for d in folders for n in names if (d / n).is_file()), None)


def decimals(words: Iterable[str]) -> list[Decimal]:
    """Numbers of a file; raises `ValueError`."""
    from scal3r_ros.io.stamps import parse_number

    return [parse_number(word) for word in words]
