"""The images of a map in a folder, with what a text about them needs."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scal3r_ros.files import explained, write_bytes
from scal3r_ros.io.exports.map_view import NO_IMAGES, ExportNotPossible, MapView

_QUALITY = 95


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image that was written."""

    name: str
    """Relative to the folder of images."""
    width: int
    height: int
    intrinsics: np.ndarray
    """(3, 3); the centre of the first pixel is (0.5, 0.5), as COLMAP and nerfstudio have it."""
    T_map_camera: np.ndarray

    @property
    def pinhole(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy."""
        K = self.intrinsics
        return float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])


def store_images(view: MapView, folder: Path) -> list[StoredImage]:
    """Write every kept image as JPEG; raises `ExportNotPossible` if there is none."""
    stored = []
    for item in view.views():
        name = f"frame_{item.frame_id:06d}.jpg"
        buffer = io.BytesIO()
        Image.fromarray(item.rgb).save(buffer, "JPEG", quality=_QUALITY)
        write_bytes(folder / name, buffer.getvalue())
        height, width = item.rgb.shape[:2]
        stored.append(StoredImage(name, width, height, item.intrinsics, item.T_map_camera))
    if not stored:
        raise ExportNotPossible(NO_IMAGES)
    return stored


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` only when the block ends well."""
    partial = folder.with_name(f".{folder.name}.part")
    with explained(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        yield partial
        with explained(folder):
            if folder.exists():
                shutil.rmtree(folder)
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def files_in(folder: Path) -> list[Path]:
    """Everything in a folder that was written, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
