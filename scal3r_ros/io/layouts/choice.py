"""The layout of a folder that a user names, by what lies in it."""

from __future__ import annotations

import os
from pathlib import Path

from scal3r_ros.io.bag_files import is_bag
from scal3r_ros.io.image_files import (
    IMAGE_SUFFIXES,
    ImageFiles,
    list_images,
    match_images,
    unreadable_files,
)  # fmt: skip
from scal3r_ros.io.layouts import euroc, exports, kitti, tum
from scal3r_ros.io.layouts.listing import Listing, at_rate, made_up
from scal3r_ros.io.source import BadInput

_DEEPEST, _WIDEST = 3, 200
"""Levels, and folders of each, in which is looked for what may be meant."""
FOLDERS = (
    "rgb",
    "images",
    "image",
    "color",
    "colour",
    "image_2",
    "image_0",
    "frames",
    "undistorted",
)
"""Folders of images that are looked for in the one that is named, in this order."""


def choose_listing(folder: Path, rate: float, pattern: str = "") -> Listing:
    """Images of the folder; raises `BadInput` that says what lies there instead.

    `pattern`, a glob relative to the folder, overrules every layout. Stamps of images without any
    are made up at `rate` (Hz).
    """
    if pattern:
        return _plain(folder, match_images(folder, pattern), rate)
    for find in (tum.find, euroc.find, kitti.find):
        if listing := find(folder):
            return listing
    for find_export in exports.FINDERS:
        if listing := find_export(folder, rate):
            return listing
    if (images := list_images(folder)).paths:
        return _plain(folder, images, rate)
    return _below(folder, rate)


def _below(folder: Path, rate: float) -> Listing:
    """Images in the only folder below that has some, or in one of a usual name."""
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    usual = [folder / name for name in FOLDERS if folder / name in below]
    for place in usual:
        if (images := list_images(place)).paths:
            return _plain(place, images, rate)
    others = [p for p in below if p not in usual and _has_images(p) and not _is_result(p)]
    if len(others) == 1:
        return _plain(others[0], list_images(others[0]), rate)
    if others:
        names = ", ".join(path.name for path in others[:5])
        raise BadInput(f"{folder} holds several folders of images ({names}); name one of them")
    raise BadInput(_nothing(folder))


def _is_result(folder: Path) -> bool:
    """Whether a run of ours wrote its pictures there."""
    return (folder / "report.json").is_file() and (folder / "trajectory.txt").is_file()


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def _plain(folder: Path, images: ImageFiles, rate: float) -> Listing:
    note = f"{images.note}, " if images.note else ""
    if unreadable := unreadable_files(folder):
        note += f"{len(unreadable)} files such as {unreadable[0].name} cannot be read, "
    places = dict.fromkeys([folder, images.paths[0].parent, folder.parent])
    return Listing(at_rate(images.paths, rate), note + made_up(rate), places=tuple(places))


def _nothing(folder: Path) -> str:
    found = f"{folder} holds no images ({' '.join(IMAGE_SUFFIXES)}) and no rgb.txt that names some"
    if unreadable := unreadable_files(folder):
        found += f", but {len(unreadable)} files such as {unreadable[0].name}; convert them to PNG"
    if deeper := _deeper(folder):
        found += f"; {', '.join(map(str, deeper[:3]))} below it may be meant: name one of them"
    return found


def _deeper(folder: Path) -> list[Path]:
    """Folders further down that hold images or a bag, among the first that are met."""
    found: list[Path] = []
    level = [folder]
    for _ in range(_DEEPEST):
        below = [p for parent in level for p in sorted(parent.iterdir()) if _is_open_folder(p)]
        level = below[:_WIDEST]
        found += [path for path in level if _has_images(path) or is_bag(path)]
    return found


def _is_open_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".") and os.access(path, os.R_OK | os.X_OK)
