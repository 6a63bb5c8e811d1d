"""Image files of other forms than 8-bit RGB become what the network takes."""

import io
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from scal3r_ros.io.image_decoding import decode_compressed
from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.stretch import Stretch

HEIC_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\x14ispe" + bytes(4) + 3 * b"\0\0\0\x40"
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_grey_images_get_three_equal_channels():
    grey = COLOURS[..., 0]
    found = decode_compressed(encoded(Image.fromarray(grey)), "grey.png")
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("least, most", [(0, 4095), (28_000, 31_000), (0, 65535)])
def test_deep_images_use_the_range_that_they_fill(least, most):
    grey = COLOURS[..., 0] / 255.0
    deep = (least + (most - least) * grey).astype(np.uint16)
    found = decode_compressed(encoded(Image.fromarray(deep)), "deep.png")[..., 1] / 255.0
    low, high = np.percentile(deep, [0.5, 99.5])
    expected = np.clip((deep - low) / (high - low), 0, 1)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert found.min() == 0 and found.max() == 1


def test_the_range_of_a_stream_follows_slowly():
    deep = np.linspace(1000, 3000, 64 * 48).reshape(48, 64).astype(np.uint16)
    stretch = Stretch()
    first = [stretch(deep) for _ in range(50)][-1]
    hot = deep.copy()
    hot[:20] = 60_000
    now = stretch(hot)
    assert np.abs(now[20:].astype(int) - first[20:]).max() < 100, "one hot image changes little"
    assert np.abs(stretch(deep + 3).astype(int) - first).max() < 100
    for _ in range(300):
        later = stretch(deep * 8)
    np.testing.assert_allclose(later.astype(int), first, atol=4)


def test_transparency_is_dropped():
    alpha = np.dstack((COLOURS, np.full(COLOURS.shape[:2], 100, np.uint8)))
    found = decode_compressed(encoded(Image.fromarray(alpha)), "alpha.png")
    np.testing.assert_array_equal(found, COLOURS)


def test_palette_images_get_their_colours():
    image = Image.fromarray(COLOURS).quantize(16)
    found = decode_compressed(encoded(image), "palette.png")
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))


def test_orientation_tag_turns_the_image_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # camera turned by a quarter
    smooth = Image.fromarray(COLOURS).resize((96, 64))
    found = decode_compressed(encoded(smooth, "JPEG", exif=exif, quality=95), "turned.jpg")
    assert found.shape == (96, 64, 3)
    upright = np.asarray(smooth.transpose(Image.Transpose.ROTATE_270))
    assert np.abs(found.astype(int) - upright).mean() < 6


def test_photos_of_phones_are_read_at_the_size_that_is_shown(tmp_path):
    """HEIC codes whole blocks of 64 pixels and says what to cut off."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is optional")
    for number in range(3):
        shown = Image.fromarray(COLOURS).resize((96, 72))
        heif.from_pillow(shown).save(tmp_path / f"IMG_{number}.HEIC", quality=95)
    frames = [image.decode() for image in open_source(tmp_path)]
    assert [frame.rgb.shape for frame in frames] == 3 * [(72, 96, 3)]
    assert np.abs(frames[0].rgb.astype(int) - np.asarray(shown)).mean() < 8


def test_without_the_library_heic_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(HEIC_HEAD)
    with pytest.raises(BadInput, match="a.heic is a HEIC image.*pip install pillow-heif"):
        next(iter(open_source(tmp_path))).decode()


def test_avif(tmp_path):
    shown = cv2.resize(COLOURS, (96, 72), interpolation=cv2.INTER_CUBIC)
    if not cv2.haveImageWriter("a.avif"):
        pytest.skip("this OpenCV has no AVIF")
    cv2.imwrite(str(tmp_path / "a.avif"), shown[..., ::-1])
    (image,) = open_source(tmp_path)
    assert np.abs(image.decode().rgb.astype(int) - shown).mean() < 8


def test_floats_and_counts_do_not_share_a_range():
    stretch = Stretch()
    counts = np.linspace(0, 60_000, 1200).reshape(30, 40).astype(np.uint16)
    first = stretch(counts)
    np.testing.assert_allclose(stretch(counts / np.float32(60_000)), first, atol=2)
    np.testing.assert_allclose(stretch(counts), first, atol=2)
