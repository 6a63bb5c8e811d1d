"""Depth images beside colour images: listed in `depth.txt`, or of the same names."""

from __future__ import annotations

import re
from pathlib import Path

from scal3r_ros.io.image_index import read_index
from scal3r_ros.io.layouts.listing import DepthFiles, Listing

MILLIMETRES = 1000.0
_SUFFIXES = (".png", ".tiff", ".tif")
_FOLDERS = ("depth", "depths", "depth_maps")


def find_depth(folder: Path, listing: Listing) -> DepthFiles | None:
    """Those that the layout names, those of `depth.txt`, or files called as the images are."""
    if listing.depth is not None:
        return listing.depth
    if index := next((d / "depth.txt" for d in (folder, folder.parent) if _has_index(d)), None):
        return indexed(index)
    return same_names(listing.images)


def indexed(index: Path) -> DepthFiles:
    """The files of an index, which have stamps of their own; raises `BadInput`."""
    return DepthFiles(read_index(index).images, index.name)


def same_names(images: tuple[tuple[int, Path], ...], per_metre: float = 0.0) -> DepthFiles | None:
    """For each image that has one: `frame-1.color.png` and `frame-1.depth.png`, `color/1.jpg` and
    `depth/1.png`, `frame1.jpg` and `depth1.png`."""
    found = [(ns, depth) for ns, path in images if (depth := _partner(path)) is not None]
    if not found:
        return None
    scenes = all(".depth." in path.name for _, path in found)  # 7-Scenes, in millimetres
    place = found[0][1].parent.name
    return DepthFiles(tuple(found), f"{place}/", per_metre or (MILLIMETRES if scenes else 0.0))


def _partner(image: Path) -> Path | None:
    stems = {
        re.sub(rf"(?<![a-z]){word}(?![a-z])", "depth", image.stem.lower())
        for word in ("color", "colour", "rgb", "frame")
    }
    beside = [image.with_name(stem + s) for stem in sorted(stems) for s in _SUFFIXES]
    below = [image.parent.parent / d / (image.stem + s) for d in _FOLDERS for s in _SUFFIXES]
    choices = (path for path in (*beside, *below) if path != image)
    return next((path for path in choices if path.is_file()), None)


def _has_index(folder: Path) -> bool:
    return (folder / "depth.txt").is_file()
