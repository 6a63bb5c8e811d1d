"""Which files of a folder are the images of one camera: no hidden files, thumbnails, depth maps."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scal3r_ros.io.image_header import bits_of_file
from scal3r_ros.io.source import BadInput

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm",
                  ".avif", ".heic", ".heif")  # fmt: skip
UNREADABLE = (".jxl", ".jp2", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf",
              ".raf", ".rw2", ".raw", ".psd", ".svg", ".tga")  # fmt: skip
"""Images that are not read; where they lie they are named."""
_COLOUR = {"color", "colour", "rgb"}
_OTHER = {"depth", "disparity", "disp", "mask", "masks", "label", "labels", "semantic", "seg",
          "instance", "normal", "normals", "confidence", "conf", "alpha", "thumb",
          "thumbnail", "infra", "ir"}  # fmt: skip
_SIDES = ({"left"}, {"right"})


@dataclass(frozen=True)
class ImageFiles:
    """Images of one camera in natural order, and what was left out."""

    paths: tuple[Path, ...]
    note: str = ""


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Order of names in which frame2 comes before frame10."""
    words = re.split(r"(\d{1,18})", path.name)
    return [(0, int(word)) if word.isdecimal() and word.isascii() else (1, word) for word in words]


def list_images(folder: Path) -> ImageFiles:
    """The colour images of one camera in a folder; raises `BadInput` if it is not clear which."""
    if not folder.is_dir():
        return ImageFiles(())
    images = [path for path in folder.iterdir() if _is_image(path)]
    groups = _groups(images)
    chosen = _without_other_kinds(groups, folder)
    if len(chosen) > 1:
        _require_one_camera(chosen, folder)
    kept = sorted((path for paths in chosen.values() for path in paths), key=natural_key)
    left_out = len(images) - len(kept)
    names = ", ".join(sorted(set(groups) - set(chosen))[:3])
    return ImageFiles(tuple(kept), f"{left_out} others ({names}) left out" if left_out else "")


def match_images(folder: Path, pattern: str) -> ImageFiles:
    """The files of a folder that match a glob, in natural order; raises `BadInput`."""
    try:
        found = [path for path in folder.glob(pattern) if _is_image(path)]
    except (ValueError, NotImplementedError) as error:
        raise BadInput(f"--images {pattern!r} is no pattern below {folder}: {error}") from error
    if not found:
        raise BadInput(f"--images {pattern!r} matches no image in {folder}")
    return ImageFiles(tuple(sorted(found, key=lambda p: (str(p.parent), natural_key(p)))))


def unreadable_files(folder: Path) -> list[Path]:
    """Images of types that are not read."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in UNREADABLE)


def _is_image(path: Path) -> bool:
    """By name; a pipe or device is refused when it is read, a folder is none."""
    named = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    return named and not path.is_dir()


def _groups(images: Iterable[Path]) -> dict[str, list[Path]]:
    """By name with `#` for numbers, but cameras keep theirs: `cam0_#.png`."""
    groups = defaultdict(list)
    for path in images:
        stem = re.sub(r"(?<!\d)(?<!cam)(?<!camera)(?<!cam_)(?<!camera_)\d+", "#", path.stem.lower())
        groups[stem + path.suffix.lower()].append(path)
    return dict(groups)


def _words(group: str) -> set[str]:
    return set(re.findall(r"[a-z]+", group.rsplit(".", 1)[0]))


def _without_other_kinds(groups: dict[str, list[Path]], folder: Path) -> dict[str, list[Path]]:
    plain = {g: paths for g, paths in groups.items() if not _words(g) & _OTHER}
    if groups and not plain:
        raise BadInput(
            f"{folder} holds no colour images by their names, but {', '.join(sorted(groups)[:3])}; "
            f"to map them nevertheless, say --images '*'"
        )
    numbered = {g: paths for g, paths in plain.items() if "#" in g}
    if sum(map(len, numbered.values())) >= 0.8 * sum(map(len, plain.values())):
        plain = numbered
    if colour := {g: paths for g, paths in plain.items() if _words(g) & _COLOUR}:
        return colour
    if len(plain) > 1 and _share_stems(plain):
        shallow = {g: paths for g, paths in plain.items() if bits_of_file(paths[0]) <= 8}
        return shallow or plain
    return plain


def _require_one_camera(groups: dict[str, list[Path]], folder: Path) -> None:
    """Raise `BadInput` for a stereo pair, several cameras, or one sequence saved twice."""
    sides = all(any(_words(g) & side for g in groups) for side in _SIDES)
    cameras = len({number for g in groups for number in re.findall(r"cam(?:era)?_?(\d+)", g)}) > 1
    if sides or cameras or _share_stems(groups):
        first = sorted(groups)[0].replace("#", "*")
        raise BadInput(
            f"{folder} holds images of several sequences ({', '.join(sorted(groups)[:4])}); choose "
            f"one, such as --images '{first}'"
        )


def _share_stems(groups: dict[str, list[Path]]) -> bool:
    """Whether two groups have images of one name, but for the type."""
    stems = [{path.stem for path in paths} for paths in groups.values()]
    return len(set().union(*stems)) < sum(map(len, stems))
