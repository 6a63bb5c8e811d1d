"""What kind of video a file is, by its first bytes: suffixes are missing, wrong, or anybody's.

Only these kinds reach FFmpeg, which would also follow playlists to other files and addresses.
"""

from __future__ import annotations

import re
from pathlib import Path

from scal3r_ros.files import BadArchive, open_regular

_HEAD = 1024
_SIGNATURES = {
    "MP4": rb".{4}(?:ftyp(?!avif|avis|heic|heix|hevc|hevx|heim|heis|mif1|msf1)|moov|mdat|wide"
    rb"|free|skip|pnot)",
    "AVI": rb"RIFF....AVI ",
    "Matroska": rb"\x1a\x45\xdf\xa3",
    "ASF": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "FLV": rb"FLV\x01",
    "GIF": rb"GIF8[79]a",
    "MPEG-TS": rb"G.{187}G.{187}G|.{4}G.{191}G.{191}G",
    "MPEG": rb"\x00\x00\x01[\xba\xb3]",
    "Ogg": rb"OggS",
    "IVF": rb"DKIF",
    "MXF": rb"\x06\x0e\x2b\x34",
    "YUV4MPEG": rb"YUV4MPEG2 ",
    "H.264 stream": rb"\x00\x00\x00?\x01[\x01\x05-\x09\x21\x25-\x29\x41\x45-\x49\x61\x65-\x69]",
    "H.265 stream": rb"\x00\x00\x00?\x01[\x40\x42\x44\x46\x4e]\x01",
}
BARE = ("H.264 stream", "H.265 stream")
"""Streams without a container, which tell no times."""


def video_kind(path: Path) -> str:
    """One of the kinds above; empty for what is none, or cannot be read."""
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
    except (OSError, BadArchive):
        return ""
    fitting = (kind for kind, start in _SIGNATURES.items() if re.match(start, head, re.DOTALL))
    return next(fitting, "")
