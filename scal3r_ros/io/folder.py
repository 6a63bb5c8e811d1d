"""A folder of images, with time stamps from `rgb.txt` and intrinsics from `camera_info.yaml`;
and the depth images beside them."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from scal3r_ros.io.calibration import calibrated_frame
from scal3r_ros.io.calibration_files import find_calibration
from scal3r_ros.io.image_decoding import decode_compressed
from scal3r_ros.io.measurements import Measurement
from scal3r_ros.io.source import BadInput, SizeCheck, SourceImage
from scal3r_ros.records import Frame

TUM_DEPTH = 5000.0
"""Depth images in a folder count this much per metre, as in the TUM RGB-D benchmark."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


class FolderSource:
    """Images of a folder.

    With a file `rgb.txt` in the folder or above it (lines `seconds file`, as in the TUM RGB-D
    benchmark) its images and stamps are used. Without one, images are taken in order of their
    names and get stamps at `rate`.
    """

    def __init__(
        self, folder: Path, rate: float, camera_info: str | Path | None, max_pixels: int
    ) -> None:
        self._max_pixels = max_pixels
        images = next((d for d in (folder, *_image_folders(folder)) if _list_images(d)), folder)
        places = list(dict.fromkeys([folder, images, images.parent]))
        index = next((d / "rgb.txt" for d in places if (d / "rgb.txt").is_file()), None)
        self._calibration = find_calibration(places, camera_info)
        if index is not None:
            self._images = read_index(index)
            stamps = f"stamps from {index.name}"
        else:
            step = 1_000_000_000 / rate
            self._images = [(round(n * step), p) for n, p in enumerate(_list_images(images))]
            stamps = f"no rgb.txt, so stamps are made up at {rate:g} Hz"
        if not self._images:
            raise BadInput(
                f"{folder} holds no images ({' '.join(IMAGE_SUFFIXES)}) and no rgb.txt that "
                f"names some"
            )
        self.files = tuple(path for _, path in self._images)
        known = f"intrinsics from {Path(self._calibration.name).name}" if self._calibration else ""
        self.description = f"{len(self._images)} images, {stamps}, {known or 'no intrinsics'}"

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[SourceImage]:
        check = SizeCheck()
        for number, (stamp_ns, path) in enumerate(self._images):
            load = partial(self._load, number, stamp_ns, path, check)
            yield SourceImage(number, stamp_ns, load)

    def _load(self, number: int, stamp_ns: int, path: Path, check: SizeCheck) -> Frame:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}") from error
        rgb = check(decode_compressed(data, str(path), self._max_pixels), str(path))
        return calibrated_frame(number, stamp_ns, rgb, self._calibration)


class FolderDepth:
    """Depth images that `depth.txt` lists beside the colour images, as in the TUM benchmark."""

    T_base_camera: np.ndarray | None = None

    def __init__(self, index: Path) -> None:
        self._images = read_index(index)
        self.description = f"{len(self._images)} depth images of {index.name}"

    def __iter__(self) -> Iterator[Measurement]:
        for stamp_ns, path in self._images:
            yield Measurement(stamp_ns, "depth", partial(_read_depth, path))


def read_index(path: Path) -> list[tuple[int, Path]]:
    """Read `rgb.txt`: stamps in nanoseconds, strictly increasing, and image paths."""
    images: list[tuple[int, Path]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path} line {number}"
        try:
            stamp_ns, name = int(Decimal(words[0]) * 1_000_000_000), words[1]
        except (InvalidOperation, IndexError, ValueError, OverflowError) as error:
            raise BadInput(f"{where}: expected `seconds file`, found {line.strip()!r}") from error
        if images and stamp_ns <= images[-1][0]:
            what = "repeats the stamp of" if stamp_ns == images[-1][0] else "is earlier than"
            raise BadInput(f"{where}: {name} {what} the line before; stamps must increase")
        image = path.parent / name
        if not image.is_file():
            raise BadInput(f"{where}: {image} does not exist")
        images.append((stamp_ns, image))
    return images


def _list_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)


def _image_folders(folder: Path) -> list[Path]:
    return [folder / name for name in ("rgb", "images", "image_0", "color")]


def _read_depth(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2 or image.dtype != np.uint16:
        raise BadInput(f"{path} is no readable 16-bit depth image")
    return image.astype(np.float32) / np.float32(TUM_DEPTH)
