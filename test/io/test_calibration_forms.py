"""Calibration files of other tools give the same camera, or one sentence."""

import numpy as np
import pytest

from scal3r_ros.io.calibration_files import load_calibration
from scal3r_ros.io.source import BadInput

K = [[50.0, 0, 31.5], [0, 52.0, 23.5], [0, 0, 1]]
LENS = [0.1, -0.02, 0.001, 0.002]
FORMS = {
    "nested lists": f"image_width: 64\nimage_height: 48\ncamera_matrix: {K}\n"
    f"distortion_coefficients: [{LENS}]\n",
    "OpenCV storage": "%YAML:1.0\n---\nimage_width: 64\nimage_height: 48\n"
    "camera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n"
    f"   data: {sum(K, [])}\ndistortion_coefficients: !!opencv-matrix\n   rows: 4\n   cols: 1\n"
    f"   dt: d\n   data: {LENS}\n",
    "Kalibr": "cam0:\n  camera_model: pinhole\n  intrinsics: [50.0, 52.0, 31.5, 23.5]\n"
    f"  distortion_model: radtan\n  distortion_coeffs: {LENS}\n  resolution: [64, 48]\n"
    "  rostopic: /cam0/image_raw\n",
    "EuRoC": "sensor_type: camera\nresolution: [64, 48]\ncamera_model: pinhole\n"
    "intrinsics: [50.0, 52.0, 31.5, 23.5]\ndistortion_model: radial-tangential\n"
    f"distortion_coefficients: {LENS}\n",
    "ORB-SLAM": "%YAML:1.0\nCamera.fx: 50.0\nCamera.fy: 52.0\nCamera.cx: 31.5\nCamera.cy: 23.5\n"
    "Camera.k1: 0.1\nCamera.k2: -0.02\nCamera.p1: 0.001\nCamera.p2: 0.002\nCamera.width: 64\n"
    "Camera.height: 48\n",
    "echoed message": f"width: 64\nheight: 48\ndistortion_model: plumb_bob\nd: {LENS}\n"
    f"k: {sum(K, [])}\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_other_tools(tmp_path, form):
    path = tmp_path / "calibration.yaml"
    path.write_text(FORMS[form])
    found = load_calibration(path)
    assert found is not None and (found.width, found.height) == (64, 48)
    np.testing.assert_allclose(found.K, K)
    np.testing.assert_allclose(found.distortion[:4], LENS)
    assert found.model == "plumb_bob"


HEAD = "image_width: 64\nimage_height: 48\n"
BAD = {
    "": "holds no fields",
    "a: [": "no readable YAML",
    HEAD: "has no camera_matrix",
    HEAD + "camera_matrix: {data: [1, 2, 3, 4]}": r"K \(camera_matrix\) needs 9 numbers",
    HEAD + f"camera_matrix: {[[1, 2], [3]]}": "needs 9 numbers",
    HEAD + "camera_matrix: wide": "must be a list of numbers",
    HEAD + f"camera_matrix: {K}\ndistortion_coefficients: [0.1, 0.2, 0.3]": "found 3",
    HEAD + f"camera_matrix: {K}\nD: [null, 0.2, 0, 0]": "list of numbers|finite",
    HEAD + f"camera_matrix: {K}\ndistortion_model: fov\nD: [0.1]": "'fov' is not supported",
    f"camera_matrix: {K}": "image_width must be a number of pixels",
    "cam0: {camera_model: omni, intrinsics: [1, 2, 3, 4, 5]}": "camera model 'omni'",
    "a: &a [*a]": "an alias that holds itself",
    HEAD + f"camera_matrix: [{'9' * 400}, 0, 1, 0, 1, 1, 0, 0, 1]": "list of numbers",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_bad_files_are_told_in_a_sentence(tmp_path, text):
    path = tmp_path / "calibration.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=BAD[text]) as caught:
        load_calibration(path)
    assert "\n" not in str(caught.value) and "Error(" not in str(caught.value)


@pytest.mark.parametrize(
    "line, coefficients",
    [
        ("1 SIMPLE_RADIAL 64 48 50 32 24 0.1", [0.1, 0, 0, 0]),
        ("1 OPENCV 64 48 50 52 32 24 0.1 -0.02 0.001 0.002", LENS),
        ("1 PINHOLE 64 48 50 52 32 24", [0, 0, 0, 0]),
    ],
)
def test_colmap_counts_pixels_from_the_corner(tmp_path, line, coefficients):
    path = tmp_path / "cameras.txt"
    path.write_text(f"# Camera list\n{line}\n")
    found = load_calibration(path)
    assert found is not None and found.K[0, 2] == 31.5 and found.K[1, 2] == 23.5
    np.testing.assert_allclose(found.distortion[:4], coefficients)
    path.write_text("1 FOV 64 48 50 52 32 24 0.9\n")
    with pytest.raises(BadInput, match="FOV"):
        load_calibration(path)
