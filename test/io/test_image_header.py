"""Declared sizes are read from headers, and what declares too much is refused before decoding."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from scal3r_ros.io.image_decoding import decode_compressed
from scal3r_ros.io.image_header import declared_size, has_end
from scal3r_ros.io.source import BadInput

PIXELS = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)


def encoded(form: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, form, **options)
    return buffer.getvalue()


FORMS = [
    ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("BMP", {}), ("PPM", {}),
    ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {}), ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
]  # fmt: skip


@pytest.mark.parametrize("form, options", FORMS)
def test_the_header_tells_the_size_that_is_decoded(form, options):
    data = encoded(form, **options)
    assert declared_size(data) == (47, 31)
    assert decode_compressed(data, "image").shape == (31, 47, 3)
    with pytest.raises(BadInput, match="declares 47 x 31 pixels, more than input.max_pixels"):
        decode_compressed(data, "image", max_pixels=47 * 31 - 1)


@pytest.mark.parametrize("form, options", FORMS)
def test_a_header_cut_anywhere_is_refused_in_words(form, options):
    data = encoded(form, **options)
    for length in range(min(64, len(data) - 1)):
        with pytest.raises(BadInput, match="image"):
            decode_compressed(data[:length], "image")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares a large image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10))), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_small_file_that_declares_gigabytes_is_not_decoded():
    with pytest.raises(BadInput, match="declares 50000 x 50000 pixels"):
        decode_compressed(bomb(50_000, 50_000), "image")


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_only_what_lacks_its_end_is_cut_off(form):
    data = encoded(form)
    assert has_end(data)
    assert has_end(data + bytes(5000)), "padded by a webcam"
    assert has_end(data + encoded("JPEG")[:700]), "a phone's film behind it"
    assert not any(has_end(data[:length]) for length in range(4, len(data), 97))


def test_a_jpeg_that_lacks_nothing_but_its_end_is_read():
    image = np.random.default_rng(3).integers(0, 255, (48, 64, 3), np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    found = decode_compressed(data[:-2], "webcam")
    np.testing.assert_array_equal(found, decode_compressed(data, "webcam"))
    for share in (0.2, 0.5, 0.7):
        with pytest.raises(BadInput, match="is cut off"):
            decode_compressed(data[: int(share * len(data))], "webcam")
