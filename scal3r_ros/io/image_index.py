"""Index files: lines `stamp file`, as `rgb.txt` of TUM RGB-D and `data.csv` of EuRoC."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from scal3r_ros.io.source import BadInput
from scal3r_ros.io.stamps import parse_number, to_nanoseconds
from scal3r_ros.io.text_files import read_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageIndex:
    """Images in order of their stamps."""

    images: tuple[tuple[int, Path], ...]
    """Stamp in nanoseconds, strictly increasing, and file, which may be missing."""
    unit: str


def read_index(path: Path, folder: Path | None = None) -> ImageIndex:
    """Read an index whose files are relative to `folder`, or to where it lies; raises `BadInput`.

    Words are apart by white space or commas; names may hold spaces and backslashes. Lines out of
    order are sorted, with a warning.
    """
    lines, folder = _lines(path), folder or path.parent
    if not lines:
        raise BadInput(f"{path} lists no images; expected lines `seconds file`")
    stamps, unit = to_nanoseconds([stamp for _, stamp, _ in lines], str(path))
    rows = [(ns, _find(folder, name), number) for ns, (number, _, name) in zip(stamps, lines)]
    if not any(image.is_file() for _, image, _ in rows):
        raise BadInput(
            f"{path} line {rows[0][2]}: {rows[0][1]} does not exist, nor any other of it"
        )
    ordered = sorted(rows, key=lambda row: row[0])
    if ordered != rows:
        log.warning("%s is not in order of time; it is sorted", path)
    for (before, _, _), (stamp, image, number) in zip(ordered, ordered[1:]):
        if stamp == before:
            raise BadInput(
                f"{path} line {number}: {image.name} repeats the stamp of another line; each image "
                f"needs its own"
            )
    return ImageIndex(tuple((ns, image) for ns, image, _ in ordered), unit)


def _lines(path: Path) -> list[tuple[int, Decimal, str]]:
    """Line number, stamp in the file's unit, and name."""
    lines = []
    for number, text in enumerate(read_text(path).splitlines(), 1):
        line = text.strip().strip("\0")
        if not line or line[0] in "#%":
            continue
        stamp, name = _split(line)
        try:
            lines.append((number, parse_number(stamp), _required(name)))
        except ValueError as error:
            if not lines and "time" in line.lower():
                continue  # a header without its `#`
            raise BadInput(
                f"{path} line {number}: expected `seconds file`, found {line[:80]!r}"
            ) from error
    return lines


def _split(line: str) -> tuple[str, str]:
    for at, character in enumerate(line):
        if character.isspace() or character in ",;":
            return line[:at], line[at:].strip(" \t,;\"'")
    return line, ""


def _required(name: str) -> str:
    if not name or "\0" in name:
        raise ValueError("a name is needed")
    return name


def _find(folder: Path, name: str) -> Path:
    """The file of a line; further columns, as in files of associations, are left out."""
    choices = (name, name.replace("\\", "/"), name.split(",")[0].strip(), name.split()[0])
    found = (folder / choice for choice in choices if len(choice) < 1024)
    return next((image for image in found if image.is_file()), folder / name[:255])
