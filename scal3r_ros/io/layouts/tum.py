"""TUM RGB-D and what writes like it: `rgb.txt` with lines `seconds file`."""

from __future__ import annotations

from pathlib import Path

from scal3r_ros.io.image_index import read_index
from scal3r_ros.io.layouts.listing import Listing


def find(folder: Path) -> Listing | None:
    """From the folder of `rgb.txt`, or from that of its images, which must be those named there."""
    if (folder / "rgb.txt").is_file():
        return _listing(folder / "rgb.txt")
    above = folder.parent / "rgb.txt"
    if above.is_file():
        listing = _listing(above)
        if any(path.parent.resolve() == folder.resolve() for _, path in listing.images):
            return listing
    return None


def _listing(path: Path) -> Listing:
    index = read_index(path)
    unit = "" if index.unit == "seconds" else f", taken for {index.unit}"
    places = (path.parent, index.images[0][1].parent)
    return Listing(index.images, f"stamps from {path.name}{unit}", places=places)
