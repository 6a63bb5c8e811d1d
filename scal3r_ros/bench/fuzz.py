"""Throw made-up index files, calibrations, messages, stamps and images at the readers.

A reader returns what it promises or raises `BadInput`; anything else is shown with the smallest
input that does it (by the library hypothesis).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from scal3r_ros.io.calibration_files import load_calibration
from scal3r_ros.io.camera_info import calibration_from_info
from scal3r_ros.io.image_decoding import ENCODINGS, decode_compressed, decode_raw
from scal3r_ros.io.image_index import read_index
from scal3r_ros.io.ply import read_points
from scal3r_ros.io.report import write_report
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.stamps import parse_number, to_nanoseconds
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.io.video_packets import PacketDecoder

_FIELDS = ("image_width", "image_height", "camera_matrix", "distortion_model", "D", "cam0", "K",
           "distortion_coefficients", "intrinsics", "resolution", "Camera.fx", "Camera.fy",
           "Camera.cx", "Camera.cy", "camera_model", "data")  # fmt: skip
_PLY = ("format ascii 1.0", "format binary_little_endian 1.0", "element vertex 2",
        "element vertex -3", "property float x", "property float y", "property double z",
        "property list uchar int i", "element face 1")  # fmt: skip
_MODELS = ("plumb_bob", "rational_polynomial", "equidistant", "fisheye", "none", "")


def fuzz(reader: str, examples: int) -> int:
    """Try `examples` inputs on one of `READERS`; returns how many were tried, raises what a reader
    should not have raised."""
    from hypothesis import HealthCheck, Phase, given, settings

    tried = 0
    with tempfile.TemporaryDirectory(prefix="scal3r_fuzz_") as folder:
        place = Path(folder)
        (place / "0.png").write_bytes(b"")

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=examples < 1000,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        @given(_inputs(reader))
        def attempt(made: Any) -> None:
            nonlocal tried
            tried += 1
            try:
                READERS[reader](place, made)
            except BadInput as error:
                assert str(error)

        attempt()
    return tried


def _inputs(reader: str) -> Any:
    from hypothesis import strategies as st

    number = st.one_of(
        st.floats().map(str), st.integers().map(str), st.sampled_from(["1e999999", "null", "-2.1"])
    )
    line = st.lists(number | st.sampled_from(["0.png", "#", ",", "a b.png"]), max_size=18)
    rows = st.lists(line.map(" ".join), max_size=6).map("\n".join)
    text = st.one_of(rows, st.text(max_size=80)).map(str.encode) | st.binary(max_size=80)
    numbers = st.lists(st.floats() | st.integers(), max_size=14)
    value = st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=9)
            | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=6)
        ),
        max_leaves=24,
    )
    fields = st.dictionaries(st.sampled_from(_FIELDS), value | numbers, max_size=9)
    size = st.integers(-2, 40)
    return {
        "index": text,
        "trajectory": text,
        "calibration": fields.map(_yaml) | text,
        "camera_info": st.fixed_dictionaries(
            {
                "k": st.lists(st.floats(), min_size=9, max_size=9) | numbers,
                "d": numbers,
                "p": numbers,
                "distortion_model": st.sampled_from(_MODELS),
                "width": st.integers(0, 2**32 - 1),
                "height": st.integers(0, 2**32 - 1),
                "binning_x": st.integers(0, 2**32 - 1),
                "binning_y": st.integers(0, 2**32 - 1),
                "roi": st.builds(
                    SimpleNamespace,
                    x_offset=st.integers(0, 2**32 - 1),
                    y_offset=st.integers(0, 2**32 - 1),
                    width=st.integers(0, 2**32 - 1),
                    height=st.integers(0, 2**32 - 1),
                ),
            }
        ),
        "stamps": st.lists(number, max_size=8),
        "raw_image": st.fixed_dictionaries(
            {
                "encoding": st.sampled_from(ENCODINGS) | st.text(max_size=6),
                "width": size,
                "height": size,
                "step": st.integers(0, 200),
                "is_bigendian": st.integers(0, 1),
                "data": st.binary(max_size=400),
            }
        ),
        "image_file": st.tuples(
            st.sampled_from((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"P5 ")),
            st.binary(max_size=200),
        ).map(b"".join),
        "cloud": st.tuples(
            st.lists(st.sampled_from(_PLY) | st.text(max_size=20), max_size=9).map("\n".join),
            st.binary(max_size=60),
        ).map(lambda parts: b"ply\n" + parts[0].encode() + b"\nend_header\n" + parts[1]),
        "packets": st.lists(
            st.tuples(
                st.sampled_from((b"", b"\0\0\1\x67", b"\0\0\1\x65", b"\0\0\1\x41")),
                st.binary(max_size=80),
            ).map(b"".join),
            max_size=6,
        ),
    }[reader]


def _yaml(fields: dict) -> bytes:
    import yaml

    return yaml.safe_dump(fields).encode()


def _file(read: Callable[[Path], Any], name: str) -> Callable[[Path, bytes], None]:
    def attempt(place: Path, made: bytes) -> None:
        path = place / name
        path.write_bytes(made)
        read(path)

    return attempt


def _info(_: Path, made: dict) -> None:
    found = calibration_from_info(SimpleNamespace(**made), "camera_info")
    if found is not None:
        assert np.isfinite(found.K).all() and found.K[0, 0] > 0 and found.K[1, 1] > 0


def _stamps(_: Path, made: list[str]) -> None:
    try:
        values = [parse_number(word) for word in made]
    except ValueError:
        return
    found, _unit = to_nanoseconds(values, "stamps")
    assert all(abs(stamp) < 2**63 for stamp in found)


def _raw(_: Path, made: dict) -> None:
    rgb = decode_raw(SimpleNamespace(**made), "image")
    assert rgb.shape == (made["height"], made["width"], 3) and rgb.dtype == np.uint8


def _encoded(_: Path, made: bytes) -> None:
    rgb = decode_compressed(made, "image")
    assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8


def _packets(_: Path, made: list[bytes]) -> None:
    decoder: PacketDecoder[int] = PacketDecoder("h264", "video", 10_000)
    found = [d for number, data in enumerate(made) for d in decoder.feed(data, number, number)]
    for decoded in [*found, *decoder.flush()]:
        rgb = decoded.rgb()
        assert rgb.ndim == 3 and rgb.dtype == np.uint8


READERS: dict[str, Callable[[Path, Any], None]] = {
    "index": _file(read_index, "rgb.txt"),
    "trajectory": _file(read_trajectory, "truth.txt"),
    "calibration": _file(load_calibration, "calibration.yaml"),
    "camera_info": _info,
    "stamps": _stamps,
    "raw_image": _raw,
    "image_file": _encoded,
    "cloud": _file(read_points, "truth.ply"),
    "packets": _packets,
}
"""What is tried, by name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `scal3r bench fuzz`."""
    parser.add_argument("--out", type=Path, default=Path("out/bench/fuzz.json"))
    parser.add_argument("--quick", action="store_true", help="1000 examples instead of 100000")


def run(args: argparse.Namespace) -> None:
    """All readers share the examples."""
    examples = (1000 if args.quick else 100_000) // len(READERS)
    facts = {}
    for reader in READERS:
        started = time.monotonic()
        tried = fuzz(reader, examples)
        facts[reader] = {"examples": tried, "seconds": round(time.monotonic() - started, 1)}
        print(f"{reader:12} {tried:7} inputs, {facts[reader]['seconds']} s, no fault")
    write_report(args.out, facts)
