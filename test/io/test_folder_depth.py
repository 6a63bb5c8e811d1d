"""Depth images beside colour images: found in each layout, in metres, in a unit that is certain."""

import json

import cv2
import numpy as np
import pytest
from recordings import scene, write_folder

from scal3r_ros.io.inputs import open_measurements, open_source
from scal3r_ros.io.source import BadInput

FRAMES = scene(4)
METRES = np.linspace(0.7, 3.9, 48 * 64).reshape(48, 64)
WANTED = {"depth": "scale.source depth"}


def write(path, per_metre, dtype=np.uint16):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = METRES * per_metre
    assert cv2.imwrite(str(path), values.astype(dtype))


def colour(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), FRAMES[0].rgb)


def scenes(folder):
    for i in range(4):
        colour(folder / f"frame-{i:06d}.color.png")
        write(folder / f"frame-{i:06d}.depth.png", 1000)
    spoilt = cv2.imread(str(folder / "frame-000001.depth.png"), cv2.IMREAD_UNCHANGED)
    spoilt[:, :40] = 65535  # nothing was measured
    cv2.imwrite(str(folder / "frame-000001.depth.png"), spoilt)


def scannet(folder):
    (folder / "intrinsic").mkdir(parents=True)
    matrix = "50 0 32 0\n0 50 24 0\n0 0 1 0\n0 0 0 1\n"
    (folder / "intrinsic/intrinsic_color.txt").write_text(matrix)
    for i in (0, 2, 10):
        colour(folder / f"color/{i}.jpg")
        write(folder / f"depth/{i}.png", 1000)


def replica(folder):
    for i in range(3):
        colour(folder / f"results/frame{i:06d}.jpg")
        write(folder / f"results/depth{i:06d}.png", 6553.5)
    (folder / "traj.txt").write_text("")
    camera = {"w": 64, "h": 48, "fx": 50, "fy": 50, "cx": 32, "cy": 24, "scale": 6553.5}
    (folder / "cam_params.json").write_text(json.dumps({"camera": camera}))


def nerfstudio(folder):
    frames = []
    for i in range(3):
        colour(folder / f"images/{i}.png")
        write(folder / f"other/{i}.png", 1000)
        frames.append({"file_path": f"images/{i}.png", "depth_file_path": f"other/{i}.png"})
    (folder / "transforms.json").write_text(json.dumps({"frames": frames[::-1]}))


def floats(folder):
    for i in range(3):
        colour(folder / f"images/{i}.jpg")
        write(folder / f"depth/{i}.tiff", 1, dtype=np.float32)


@pytest.mark.parametrize("layout", [scenes, scannet, replica, nerfstudio, floats])
def test_depth_of_a_layout_is_in_metres_at_the_time_of_its_image(tmp_path, layout):
    layout(tmp_path)
    source = open_source(tmp_path)
    found = list(open_measurements(source, tmp_path, WANTED))
    assert [m.stamp_ns for m in found] == [image.stamp_ns for image in source]
    for measurement in found:
        metres = measurement.read()
        known = metres > 0
        assert known[:, 40:].all()
        np.testing.assert_allclose(metres[known], METRES[known], atol=2e-3)


def test_millimetres_are_never_called_metres(tmp_path):
    write_folder(tmp_path, FRAMES, stamps=False)
    for image in FRAMES:
        write(tmp_path / f"depth/{image.id:06d}.png", 1000)
    source = open_source(tmp_path)
    with pytest.raises(BadInput, match="does not tell the unit.*--depth-unit mm"):
        open_measurements(source, tmp_path, WANTED)
    first = next(iter(open_measurements(source, tmp_path, WANTED, depth_unit="mm")))
    np.testing.assert_allclose(first.read(), METRES, atol=2e-3)
    first = next(iter(open_measurements(source, tmp_path, WANTED, depth_unit="m")))
    with pytest.raises(BadInput, match="median depth is 2.*is it in millimetres"):
        first.read()


def test_where_only_millimetres_make_sense_they_are_taken(tmp_path):
    """At 5000 per metre all of it would be nearer than a depth camera sees."""
    write_folder(tmp_path, FRAMES, stamps=False)
    for image in FRAMES:
        write(tmp_path / f"depth/{image.id:06d}.png", 400)
    measurements = open_measurements(open_source(tmp_path), tmp_path, WANTED)
    assert "1000 per metre" in measurements.description
