"""A folder of images, in whatever layout, and the depth images beside them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from scal3r_ros.files import BadArchive, open_regular
from scal3r_ros.io.calibration import Calibration, calibrated_frame
from scal3r_ros.io.calibration_files import find_calibration, load_calibration
from scal3r_ros.io.image_decoding import decode_compressed
from scal3r_ros.io.image_header import shown_size_of_file
from scal3r_ros.io.layouts.choice import choose_listing
from scal3r_ros.io.layouts.depth import find_depth
from scal3r_ros.io.layouts.listing import DepthFiles, Listing
from scal3r_ros.io.source import BadInput, SizeCheck, SourceImage, most_common
from scal3r_ros.io.stretch import Stretch
from scal3r_ros.records import Frame

LARGEST_FILE = 2**30
"""Bytes of the largest image file."""
_SAMPLED = 24
"""Images whose headers tell the usual size."""


class FolderSource:
    """Images of a folder, with stamps and intrinsics of its layout (`layouts/`).

    Without stamps, images are taken in natural order of their names and get stamps at `rate`.
    """

    def __init__(
        self,
        folder: Path,
        rate: float,
        camera_info: str | Path | None,
        max_pixels: int,
        pattern: str = "",
    ) -> None:
        self._max_pixels, self.stretch = max_pixels, Stretch()
        listing = choose_listing(folder, rate, pattern)
        self._images, self._folder, self._listing = listing.images, folder, listing
        self._calibration = _calibration(folder, listing, camera_info)
        self.files = tuple(path for _, path in self._images if path.is_file())
        self.description = (
            f"{len(self._images)} images, {listing.stamps}, {_origin(self._calibration)}"
        )

    def __len__(self) -> int:
        return len(self._images)

    def depth(self) -> DepthFiles | None:
        """Depth images beside these, if there are any; raises `BadInput`."""
        return find_depth(self._folder, self._listing)

    def __iter__(self) -> Iterator[SourceImage]:
        step = max(1, len(self._images) // _SAMPLED)
        check = SizeCheck(most_common(shown_size_of_file(p) for _, p in self._images[::step]))
        self.stretch.rewind()
        for number, (stamp_ns, path) in enumerate(self._images):
            load = partial(self._load, number, stamp_ns, path, check)
            yield SourceImage(number, stamp_ns, load)

    def _load(self, number: int, stamp_ns: int, path: Path, check: SizeCheck) -> Frame:
        rgb = decode_compressed(read_file(path), str(path), self._max_pixels, self.stretch)
        check(rgb, str(path))
        return calibrated_frame(number, stamp_ns, rgb, self._calibration)


def read_file(path: Path) -> bytes:
    """Content of an image file; raises `BadInput` for what is no regular file or too large."""
    try:
        with open_regular(path) as file:
            data = file.read(LARGEST_FILE + 1)
    except BadArchive as error:
        raise BadInput(str(error)) from error
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise BadInput(f"{path} has more than {LARGEST_FILE} bytes; scale the images down")
    return data


def _calibration(folder: Path, listing: Listing, explicit: str | Path | None) -> Calibration | None:
    """The user's file first, then one beside the images, then that of the layout."""
    if explicit:
        return load_calibration(explicit)
    found = find_calibration(dict.fromkeys([folder, *listing.places]))
    if found is None and listing.read_calibration is not None:
        return listing.read_calibration()
    return found


def _origin(calibration: Calibration | None) -> str:
    return f"intrinsics from {Path(calibration.name).name}" if calibration else "no intrinsics"
