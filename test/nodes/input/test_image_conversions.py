"""Every image encoding gives the picture that was encoded; malformed messages are refused."""

import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is absent")
import cv2
from sensor_msgs.msg import CompressedImage, Image

from scal3r_ros.io.camera_info import calibration_from_info
from scal3r_ros.io.image_decoding import ENCODINGS, decode_message
from scal3r_ros.io.source import BadInput
from scal3r_ros.nodes.input.image_conversions import depth_to_image, pinhole_camera_info

pytestmark = pytest.mark.ros

HEIGHT, WIDTH = 48, 64
COLOURS = {"red": (220, 20, 40), "green": (30, 200, 60), "blue": (10, 50, 230)}


def decode(message) -> np.ndarray:
    return decode_message(message, "image")


def picture() -> np.ndarray:
    """Smooth ramps, different in each channel and direction, so that a swap or flip shows."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    red = 20 + 3 * columns
    green = 250 - 4 * rows
    blue = 60 + columns + 2 * rows
    return np.stack([red, green, blue], axis=2).clip(0, 255).astype(np.uint8)


def message_of(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False):
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    message = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=rows.shape[1])
    message.is_bigendian = big_endian
    message.data = array.array("B", rows.tobytes())
    return message


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """A Bayer sensor with `pattern` in its first two rows, from the pattern's definition."""
    channel = {"r": 0, "g": 1, "b": 2}
    raw = np.zeros(rgb.shape[:2], rgb.dtype)
    for i, letter in enumerate(pattern):
        row, column = divmod(i, 2)
        raw[row::2, column::2] = rgb[row::2, column::2, channel[letter]]
    return raw


def yuv422(rgb: np.ndarray, luma_first: bool) -> np.ndarray:
    """BT.601 limited range, one chroma pair per two pixels, written from the definition."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    u, v = (plane.reshape(HEIGHT, -1, 2).mean(axis=2) for plane in (u, v))
    luma, chroma = (0, 1) if luma_first else (1, 0)
    packed = np.zeros((HEIGHT, WIDTH // 2, 4))
    packed[..., luma], packed[..., luma + 2] = y[:, ::2], y[:, 1::2]
    packed[..., chroma], packed[..., chroma + 2] = u, v
    return np.rint(packed).astype(np.uint8).reshape(HEIGHT, -1)


@pytest.mark.parametrize("padding", [0, 6, 7])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_colour_layouts_are_exact(encoding, padding):
    rgb = picture()
    pixels = rgb if encoding.startswith("rgb") else rgb[..., ::-1]
    if "a" in encoding:
        pixels = np.concatenate([pixels, np.full((HEIGHT, WIDTH, 1), 7, np.uint8)], axis=2)
    np.testing.assert_array_equal(decode(message_of(pixels, encoding, padding)), rgb)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_becomes_three_equal_channels(encoding, padding):
    grey = picture()[..., 0]
    rgb = decode(message_of(grey, encoding, padding))
    np.testing.assert_array_equal(rgb, np.repeat(grey[..., None], 3, axis=2))


def stretched(pixels: np.ndarray) -> np.ndarray:
    """The range between two percentiles as 0 to 255, of the first image of a stream."""
    low, high = np.percentile(pixels, (0.5, 99.5))
    return np.clip((pixels - low) * 255.0 / (high - low), 0, 255)


@pytest.mark.parametrize("padding", [0, 10])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_sixteen_bits_in_either_byte_order(encoding, big_endian, padding):
    twelve_bits = picture()[..., 0].astype(np.uint16) * 16 + 3
    wide = twelve_bits.astype(">u2" if big_endian else "<u2")
    rgb = decode(message_of(wide, encoding, padding, big_endian))
    expected = np.repeat(stretched(twelve_bits)[..., None], 3, axis=2)
    np.testing.assert_allclose(rgb, expected, atol=1.0)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bgra16", "16UC3", "16UC4"])
def test_sixteen_bit_colours_keep_their_order(encoding, big_endian):
    rgb = picture().astype(np.uint16) * 257
    pixels = rgb if encoding.startswith("rgb") else rgb[..., ::-1]
    if encoding.endswith(("a16", "C4")):
        pixels = np.concatenate([pixels, rgb[..., :1]], axis=2)
    wide = pixels.astype(">u2" if big_endian else "<u2")
    found = decode(message_of(wide, encoding, big_endian=big_endian))
    for channel in range(3):
        order = np.corrcoef(found[..., channel].ravel(), rgb[..., channel].ravel())[0, 1]
        assert order > 0.999


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_sixteen_bit_bayer_patterns_keep_colours(pattern):
    rgb = np.full((HEIGHT, WIDTH, 3), (65535, 0, 30000), np.uint16)
    raw = mosaic(rgb, pattern)
    found = decode(message_of(raw.astype("<u2"), f"bayer_{pattern}16"))
    np.testing.assert_allclose(
        found[2:-2, 2:-2].astype(int) / 255, rgb[2:-2, 2:-2] / 65535, atol=0.01
    )


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_half_size_chroma_keeps_colours(encoding):
    rgb = picture()
    packed = yuv422(rgb, True).reshape(HEIGHT, WIDTH // 2, 4)
    luma = packed[..., [0, 2]].reshape(HEIGHT, WIDTH)
    chroma = packed[..., [1, 3] if encoding == "nv12" else [3, 1]].astype(float)
    halved = np.rint(chroma.reshape(HEIGHT // 2, 2, -1, 2).mean(axis=1)).astype(np.uint8)
    rows = np.concatenate([luma, halved.reshape(HEIGHT // 2, WIDTH)])
    found = decode(message_of(rows, encoding))
    np.testing.assert_allclose(found.astype(int), rgb, atol=8)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_keep_colours(pattern, colour, padding):
    rgb = np.full((HEIGHT, WIDTH, 3), COLOURS[colour], np.uint8)
    found = decode(message_of(mosaic(rgb, pattern), f"bayer_{pattern}8", padding))
    np.testing.assert_allclose(found[2:-2, 2:-2].astype(int), rgb[2:-2, 2:-2], atol=1)


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize(
    ("encoding", "luma_first"),
    [("yuv422", False), ("uyvy", False), ("yuv422_yuy2", True), ("yuyv", True)],
)
def test_yuv_keeps_colours(encoding, luma_first, padding):
    rgb = picture()
    found = decode(message_of(yuv422(rgb, luma_first), encoding, padding))
    np.testing.assert_allclose(found.astype(int), rgb, atol=6)


def test_every_listed_encoding_is_tested_here():
    tested = {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC1", "mono16", "16UC1", "8UC3", "8UC4"}
    tested |= {f"bayer_{p}{bits}" for p in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)}
    tested |= {"rgb16", "bgr16", "rgba16", "bgra16", "16UC3", "16UC4", "nv12", "nv21"}
    tested |= {"yuv422", "uyvy", "yuv422_yuy2", "yuyv"}
    assert set(ENCODINGS) == tested
    rgb = picture()
    np.testing.assert_array_equal(decode(message_of(rgb[..., ::-1], "8UC3")), rgb)
    bgra = np.dstack([rgb[..., ::-1], rgb[..., 0]])
    np.testing.assert_array_equal(decode(message_of(bgra, "8UC4")), rgb)


def test_last_row_may_come_without_its_padding():
    rgb = picture()
    message = message_of(rgb, "rgb8", 9)
    message.data = message.data[:-9]
    np.testing.assert_array_equal(decode(message), rgb)


def test_pixels_are_a_copy():
    message = message_of(picture(), "rgb8")
    rgb = decode(message)
    message.data[0] ^= 255
    assert rgb[0, 0, 0] == picture()[0, 0, 0]
    rgb[0, 0, 0] = 1


@pytest.mark.parametrize(("suffix", "tolerance"), [(".jpg", 8), (".png", 0)])
def test_compressed_images(suffix, tolerance):
    rgb = picture()
    _, data = cv2.imencode(suffix, rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 97])
    message = CompressedImage(format=suffix[1:], data=array.array("B", data.tobytes()))
    np.testing.assert_allclose(decode(message).astype(int), rgb, atol=tolerance)


SIXTY_FOUR = array.array("B", bytes(64))


def broken(**changes) -> Image:
    message = message_of(picture(), "rgb8")
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (broken(encoding="32FC1"), "supported: rgb8, bgr8"),
        (broken(encoding=""), "supported"),
        (broken(height=0), "size 64 x 0"),
        (broken(width=0), "size 0 x 48"),
        (broken(step=10), "step 10"),
        (broken(data=array.array("B", bytes(100))), "holds 100 bytes, expected 48 rows of 192"),
        (broken(data=array.array("B", bytes(48 * 192 + 1))), "9217 bytes"),
        (broken(height=10**6), "expected 1000000 rows"),
        (broken(height=10**7), "declares 64 x 10000000 pixels, more than input.max_pixels"),
        (broken(encoding="yuyv", width=63), "odd width"),
        (CompressedImage(format="jpeg", data=array.array("B", b"no picture")), "no readable image"),
        (CompressedImage(format="jpeg"), r"is empty \(0 bytes"),
    ],
)
def test_malformed_images_are_refused(message, words):
    with pytest.raises(BadInput, match=words):
        decode(message)


def test_depth_image_is_metres_with_nan():
    depth = np.array([[1.5, np.nan], [0.25, 80.0]], np.float32)
    message = depth_to_image(depth, "camera_optical_frame", 1_500_000_007)
    assert (message.encoding, message.step, message.header.stamp.nanosec) == ("32FC1", 8, 500000007)
    found = np.frombuffer(message.data, "<f4").reshape(2, 2)
    np.testing.assert_array_equal(found, depth)


def test_pinhole_camera_info_round_trip():
    K = np.array([[300.0, 0, 159.5], [0, 310, 119.5], [0, 0, 1]])
    message = pinhole_camera_info(K, 320, 240, "camera_optical_frame", 5)
    calibration = calibration_from_info(message, "camera_info")
    np.testing.assert_array_equal(calibration.K, K)
    np.testing.assert_array_equal(message.p.reshape(3, 4)[:, :3], K)
    assert not calibration.distorted
