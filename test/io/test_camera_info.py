"""A camera info message becomes the calibration of the images that come with it, or a sentence."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import camera_info, scene, write_bag
from rosbags.typesys import Stores, get_typestore

from scal3r_ros.io.calibration import CalibrationMismatch, calibrated_frame
from scal3r_ros.io.camera_info import calibration_from_info, is_rectified_topic
from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.source import BadInput

TYPES = get_typestore(Stores.ROS2_HUMBLE).types
K = np.array([[500.0, 0.0, 319.5], [0.0, 510.0, 239.5], [0.0, 0.0, 1.0]])
LENS = np.array([-0.2, 0.05, 0.001, 0.002, 0.01])
POINTS = np.random.default_rng(0).uniform((-0.5, -0.4, 1.0), (0.5, 0.4, 1.0), (50, 3))


def info(width: int = 640, height: int = 480, roi=(0, 0, 0, 0), **changes):
    head = TYPES["std_msgs/msg/Header"](TYPES["builtin_interfaces/msg/Time"](1, 0), "camera")
    message = camera_info(TYPES, head, width, height, K)
    x, y, columns, rows = roi
    window = TYPES["sensor_msgs/msg/RegionOfInterest"](x, y, rows, columns, False)
    return replace(message, roi=window, **changes)


def calibration(rectified: bool = False, **changes):
    return calibration_from_info(info(**changes), "/camera_info", rectified)


def seen(matrix: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) of the test points, first pixel centre (0, 0)."""
    pixels = POINTS @ matrix.T
    return pixels[:, :2] / pixels[:, 2:]


def test_window_and_binning_keep_the_rays():
    """Column u of the sensor is in bin (u - x) // 2, whose centre is half a pixel to the right."""
    found = calibration(binning_x=2, binning_y=4, roi=(100, 40, 400, 200))
    assert (found.width, found.height) == (200, 50)
    expected = (seen(K) - (100, 40) + 0.5) / (2, 4) - 0.5
    np.testing.assert_allclose(seen(found.K), expected, atol=1e-9)


@pytest.mark.parametrize("model", ["", "none", "None", "fisheye", "plumb_bob", "anything"])
@pytest.mark.parametrize("count", [0, 3, 4, 5, 6, 8, 12])
def test_zero_coefficients_mean_no_distortion_whatever_the_model(model, count):
    found = calibration(distortion_model=model, d=np.zeros(count))
    assert not found.distorted
    np.testing.assert_array_equal(found.K, K)
    image = np.zeros((480, 640, 3), np.uint8)
    assert calibrated_frame(0, 0, image, found).rgb is image


@pytest.mark.parametrize(
    "model, count",
    [("plumb_bob", 4), ("plumb_bob", 5), ("rational_polynomial", 5), ("rational_polynomial", 8),
     ("equidistant", 4)],
)  # fmt: skip
def test_coefficients_that_a_model_has_are_applied(model, count):
    lens = np.resize(LENS, count)
    found = calibration(distortion_model=model, d=np.r_[lens, np.zeros(12 - count)])
    plain = calibration(distortion_model=model, d=lens)
    image = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    undistort = cv2.fisheye.undistortImage if model == "equidistant" else cv2.undistort
    options = {"Knew": K} if model == "equidistant" else {}
    expected = undistort(image, K, lens, **options)
    for one in (found, plain):
        straight = calibrated_frame(0, 0, image, one).rgb
        assert (straight != image).any()
        assert np.abs(straight.astype(int) - expected).mean() < 1.0  # tables of other precision


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"k": np.full(9, np.nan)}, "K holds numbers that are not finite"),
        ({"k": K.ravel()[:4]}, "needs 9 numbers, found 4"),
        ({"k": np.array([-5.0, 0, 0, 0, 5, 0, 0, 0, 1])}, "focal lengths must be positive"),
        ({"k": np.array([5.0, 0, 0, 0, 5, 0, 0, 0, 0])}, "last row is 0 0 1"),
        ({"d": np.full(5, np.inf)}, "D holds numbers that are not finite"),
        ({"distortion_model": "", "d": LENS}, "model '' is not supported"),
        ({"distortion_model": "fisheye", "d": LENS[:4]}, "fisheye model is called equidistant"),
        ({"distortion_model": "plumb_bob", "d": LENS[:3]}, "4 or 5 .* coefficients, found 3"),
        ({"distortion_model": "plumb_bob", "d": np.resize(LENS, 12)}, "4 or 5 .* found 12"),
        ({"distortion_model": "rational_polynomial", "d": np.resize(LENS, 12)}, "found 12"),
        ({"distortion_model": "rational_polynomial", "d": np.resize(LENS, 6)}, "found 6"),
        ({"distortion_model": "rational_polynomial", "d": np.r_[LENS, np.zeros(5)]}, "found 10"),
        ({"distortion_model": "equidistant", "d": LENS}, "has 4 .* found 5"),
    ],
)
def test_what_is_no_calibration_is_told(changes, words):
    with pytest.raises(BadInput, match=words):
        calibration(**changes)


def test_an_empty_one_says_that_the_camera_is_uncalibrated():
    assert calibration(k=np.zeros(9)) is None


def test_a_reduced_view_keeps_the_rays_and_another_shape_is_refused():
    small = calibration().for_size(320, 240)
    np.testing.assert_allclose(seen(small.K), (seen(K) + 0.5) / 2 - 0.5, atol=1e-9)
    assert (small.width, small.height) == (320, 240)
    assert calibration().for_size(427, 320).K[0, 0] == pytest.approx(500 * 427 / 640)
    with pytest.raises(CalibrationMismatch, match="640 x 480, found 640 x 360, another shape"):
        calibration().for_size(640, 360)


@pytest.mark.parametrize("size", [(0, 480), (640, 0), (0, 0)])
def test_without_a_size_the_matrix_is_believed_if_it_can_be_right(size):
    found = calibration(width=size[0], height=size[1])
    np.testing.assert_array_equal(found.for_size(640, 480).K, K)
    with pytest.raises(CalibrationMismatch, match="outside of the images of 300 x 200"):
        found.for_size(300, 200)


def test_a_rectified_topic_uses_the_projection_and_no_lens():
    P = np.hstack([np.diag([400.0, 400.0, 1.0]), np.zeros((3, 1))])
    P[:2, 2] = (310, 230)
    found = calibration(rectified=True, d=LENS, distortion_model="fancy", p=P.ravel())
    assert not found.distorted
    np.testing.assert_array_equal(found.K, P[:, :3])
    binned = calibration(rectified=True, p=P.ravel(), binning_x=2, binning_y=2)
    np.testing.assert_allclose(seen(binned.K), (seen(P[:, :3]) + 0.5) / 2 - 0.5, atol=1e-9)
    with pytest.raises(BadInput, match="need P"):
        calibration(rectified=True, d=LENS, p=np.zeros(12))
    np.testing.assert_array_equal(calibration(rectified=True, p=np.zeros(12)).K, K)


@pytest.mark.parametrize(
    "topic, rectified",
    [
        ("/camera/image_raw", False),
        ("/camera/image_raw/compressed", False),
        ("/image_rect", True),
        ("/left/image_rect_color/compressed", True),
        ("/infra1/image_rect_raw", True),
        ("/image_rect_node/image", False),
    ],
)
def test_rectified_topics_are_known_by_name(topic, rectified):
    assert is_rectified_topic(topic) == rectified


FRAMES = scene(3)
CAMERA = np.array([[60.0, 0.0, 31.5], [0.0, 60.0, 23.5], [0.0, 0.0, 1.0]])


def bag_with(folder: Path, *infos, topic: str = "/camera/image_raw") -> Path:
    return write_bag(folder / "bag", FRAMES, intrinsics=CAMERA, infos=infos, topic=topic)


def test_a_bag_is_read_with_the_first_usable_one(tmp_path):
    bag = bag_with(tmp_path, {"k": np.zeros(9)}, {"k": np.full(9, np.nan)}, {"binning_x": 1})
    frame = next(iter(open_source(bag))).decode()
    np.testing.assert_allclose(frame.intrinsics[:2, 2], (32.0, 24.0))


def test_a_bag_without_any_usable_one_says_why(tmp_path):
    with pytest.raises(BadInput, match="/camera/camera_info: K holds numbers"):
        open_source(bag_with(tmp_path, {"k": np.zeros(9)}, {"k": np.full(9, np.nan)}))


def test_a_bag_of_an_uncalibrated_camera_has_no_intrinsics(tmp_path):
    source = open_source(bag_with(tmp_path, {"k": np.zeros(9)}))
    assert "no intrinsics" in source.description
    assert next(iter(source)).decode().intrinsics is None


def test_a_bag_of_a_rectified_topic_is_not_undistorted(tmp_path):
    changes = {"d": LENS}
    bag = bag_with(tmp_path, changes, topic="/camera/image_rect_color")
    np.testing.assert_array_equal(next(iter(open_source(bag))).decode().rgb, FRAMES[0].rgb)
    raw = bag_with(tmp_path / "raw", changes)
    assert (next(iter(open_source(raw))).decode().rgb != FRAMES[0].rgb).any()
