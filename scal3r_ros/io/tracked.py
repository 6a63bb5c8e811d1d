"""What a tracker told between chunks, and when: one row an image, CSV.

`stamp_ns, seconds, tx, ty, tz, qx, qy, qz, qw`, camera to map; `seconds` from the arrival of the
image to its pose. Images without a pose have empty columns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.files import write_text
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.text_files import read_text

COLUMNS = ("stamp_ns", "seconds", "tx", "ty", "tz", "qx", "qy", "qz", "qw")


@dataclass(frozen=True)
class TrackedImage:
    """One image of the camera."""

    stamp_ns: int
    seconds: float | None = None
    """None if there was no pose."""
    T_map_camera: np.ndarray | None = None
    """(4, 4) as it was published."""


def write_tracked(path: str | Path, images: Iterable[TrackedImage]) -> None:
    """Write the images in the order given."""
    rows = [",".join(COLUMNS)]
    for image in images:
        numbers: list[float] = []
        if image.T_map_camera is not None and image.seconds is not None:
            T = image.T_map_camera
            numbers = [image.seconds, *T[:3, 3], *rigid.quaternion(T[:3, :3])]
        words = [f"{x:.9g}" for x in numbers] or [""] * (len(COLUMNS) - 1)
        rows.append(",".join([str(image.stamp_ns), *words]))
    write_text(path, "\n".join(rows) + "\n")


def read_tracked(path: str | Path) -> list[TrackedImage]:
    """The images of such a file; raises `BadInput`."""
    path = Path(path)
    rows = list(csv.reader(read_text(path).splitlines()))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise BadInput(f"{path}: expected a first line `{','.join(COLUMNS)}`")
    images = []
    for number, words in enumerate(rows[1:], 2):
        try:
            images.append(_image(words))
        except ValueError as error:
            raise BadInput(
                f"{path} line {number}: expected {len(COLUMNS)} numbers, or a stamp alone; found "
                f"{','.join(words)[:120]!r}"
            ) from error
    return images


def _image(words: list[str]) -> TrackedImage:
    """Raises `ValueError`."""
    if len(words) != len(COLUMNS):
        raise ValueError("another number of columns")
    stamp_ns = int(words[0])
    if not any(words[1:]):
        return TrackedImage(stamp_ns)
    values = np.array([float(word) for word in words[1:]])
    if not np.isfinite(values).all():
        raise ValueError("not finite")
    pose = rigid.from_parts(rigid.rotation_matrix(values[4:]), values[1:4])
    return TrackedImage(stamp_ns, float(values[0]), pose)
