"""Image files of other forms than 8-bit RGB become what the network takes."""

import io

import numpy as np
from PIL import Image

from scal3r_ros.io.image_decoding import decode_compressed

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_grey_images_get_three_equal_channels():
    grey = COLOURS[..., 0]
    found = decode_compressed(encoded(Image.fromarray(grey)), "grey.png")
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


def test_grey_images_of_16_bits_keep_their_high_byte():
    deep = COLOURS[..., 0].astype(np.uint16) * 257
    found = decode_compressed(encoded(Image.fromarray(deep)), "deep.png")
    np.testing.assert_allclose(found[..., 1], COLOURS[..., 0], atol=1)


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
