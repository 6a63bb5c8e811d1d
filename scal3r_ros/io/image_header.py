"""What an encoded image declares of itself, read without decoding: its size, and whether it ends.

A few bytes may declare an image of gigabytes; what is too large is refused before it costs memory.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from scal3r_ros.files import BadArchive, open_regular

_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_JPEG_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_JPEG_FRAMES = tuple(c for c in range(0xC0, 0xD0) if c not in (0xC4, 0xC8, 0xCC))
"""Start-of-frame markers of ITU-T T.81, table B.1."""
_HEAD = 2**20
"""Bytes of a file in which its size is expected, after EXIF with a preview."""
IMAGE_KINDS = "PNG, JPEG, BMP, TIFF, WebP, PGM, PPM, AVIF, HEIC"
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def declared_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a file of one of `IMAGE_KINDS`; None for another kind or a header cut
    short."""
    try:
        for signature, read in _READERS.items():
            if re.match(signature, data, re.DOTALL):
                return read(data)
    except (struct.error, IndexError):
        return None
    return None


def has_end(data: bytes) -> bool:
    """Whether a PNG or JPEG has its end; what lacks it, OpenCV fills with grey without complaint.

    What follows the end is left alone: phones append films, webcams pad with zeros.
    """
    if data.startswith(b"\xff\xd8"):
        scan = _find_jpeg_segment(data, (0xDA,))
        return scan is not None and data.find(b"\xff\xd9", scan) >= 0
    if data.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(data):  # each chunk: length, name, content, checksum
            length, name = struct.unpack_from(">I4s", data, at)
            at += 12 + length
            if name == b"IEND" and at <= len(data):
                return True
        return False
    return True


def is_progressive(data: bytes) -> bool:
    """Whether a JPEG is sent in several passes over the whole image."""
    frame = _find_jpeg_segment(data, _JPEG_FRAMES)
    return frame is not None and data[frame + 1] not in (0xC0, 0xC1)


def is_heif(data: bytes) -> bool:
    """Whether it is a HEIC or HEIF image, but no AVIF."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS


def _png(data: bytes) -> tuple[int, int]:
    return struct.unpack_from(">II", data, 16)


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = _find_jpeg_segment(data, _JPEG_FRAMES)
    if at is None:
        return None
    height, width = struct.unpack_from(">HH", data, at + 5)
    return width, height


def _find_jpeg_segment(data: bytes, wanted: tuple[int, ...]) -> int | None:
    """Where the first segment with one of these markers begins; None if there is none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in wanted:
            return at
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # the header of OS/2
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)  # a negative height means rows from the top


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return width, height
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(data: bytes) -> tuple[int, int] | None:
    """Tags 256 and 257 of the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(f"{order}I", data, 4)[0]
    found = {}
    for number in range(struct.unpack_from(f"{order}H", data, start)[0]):
        at = start + 2 + 12 * number
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag in (256, 257) and kind in _TIFF_TYPES:
            found[tag] = struct.unpack_from(order + _TIFF_TYPES[kind], data, at + 8)[0]
    return (found[256], found[257]) if len(found) == 2 else None


def _pnm(data: bytes) -> tuple[int, int] | None:
    """Numbers apart by white space, with comments to the end of a line."""
    numbers = re.match(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})", data)
    return (int(numbers[1]), int(numbers[2])) if numbers else None


def _isobmff(data: bytes) -> tuple[int, int] | None:
    """The largest image that the boxes `ispe` of an AVIF or HEIF declare."""
    sizes: list[tuple[int, int]] = []
    at = data.find(b"ispe")
    while 0 <= at < len(data) - 16 and len(sizes) < 1000:
        sizes.append(struct.unpack_from(">II", data, at + 8))
        at = data.find(b"ispe", at + 4)
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


_READERS = {
    rb"....ftyp(?:avif|avis|heic|heix|hevc|hevx|heim|heis|mif1|msf1)": _isobmff,
    rb"\x89PNG\r\n\x1a\n": _png,
    rb"\xff\xd8\xff": _jpeg,
    rb"BM": _bmp,
    rb"RIFF....WEBP": _webp,
    rb"II\x2a\0|MM\0\x2a": _tiff,
    rb"P[1-6]\s": _pnm,
}
"""By the bytes that a file starts with."""


def bits_of_file(path: Path) -> int:
    """Bits per channel of a PNG of one channel, which may be a depth map; else 8."""
    try:
        with open_regular(path) as file:
            data = file.read(4096)
    except (OSError, BadArchive):
        return 8
    if data.startswith(b"\x89PNG") and len(data) > 25:
        return data[24] if data[25] == 0 else 8
    return 8


def shown_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of an encoded image as it is shown, turned by EXIF; None if its start does
    not tell.

    AVIF, HEIC and TIFF may be clipped or turned, PNG and WebP if they have EXIF: only decoding
    tells.
    """
    size = declared_size(data)
    if size is None or data[4:8] == b"ftyp" or data[:2] in (b"II", b"MM"):
        return None
    if data[:2] != b"\xff\xd8" and (b"eXIf" in data or b"EXIF" in data):
        return None
    return (size[1], size[0]) if _exif_orientation(data) >= 5 else size


def shown_size_of_file(path: Path) -> tuple[int, int] | None:
    """The same of a file; None also for one that cannot be read."""
    try:
        with open_regular(path) as file:
            return shown_size(file.read(_HEAD))
    except (OSError, BadArchive):
        return None


def _exif_orientation(data: bytes) -> int:
    """Tag 274 of a JPEG's EXIF segment; 1, upright, if there is none."""
    at = _find_jpeg_segment(data, (0xE1,)) if data.startswith(b"\xff\xd8") else None
    if at is None or data[at + 4 : at + 10] != b"Exif\0\0":
        return 1
    tiff = data[at + 10 :]
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        start = struct.unpack_from(f"{order}I", tiff, 4)[0]
        for number in range(struct.unpack_from(f"{order}H", tiff, start)[0]):
            entry = start + 2 + 12 * number
            if struct.unpack_from(f"{order}H", tiff, entry)[0] == 274:
                return struct.unpack_from(f"{order}H", tiff, entry + 8)[0]
    except struct.error:
        return 1
    return 1
