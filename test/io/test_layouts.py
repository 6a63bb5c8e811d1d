"""Folders of public data sets and tools are read from the folder that a user would name, with true
stamps and intrinsics; and what is no image of the camera is left out, or asked about."""

import json
import struct

import cv2
import numpy as np
import pytest

from scal3r_ros.io.image_files import list_images
from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.source import BadInput

FX, FY, CX, CY = 50.0, 52.0, 31.5, 23.5
OURS = [[FX, 0, CX + 0.5], [0, FY, CY + 0.5], [0, 0, 1]]
START = 1403636579763555584


def image(number: int) -> np.ndarray:
    """An image that tells its number."""
    return np.full((48, 64, 3), 10 * number + 5, np.uint8)


def write(folder, names, dtype=np.uint8):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        pixels = image(number) if dtype == np.uint8 else image(number)[..., 0].astype(dtype)
        assert cv2.imwrite(str(folder / name), pixels)


def read(path, **options):
    """Numbers of the images, stamps, and the intrinsics."""
    frames = [item.decode() for item in open_source(path, **options)]
    numbers = [round((float(frame.rgb.mean()) - 5) / 10) for frame in frames]
    return numbers, [frame.stamp_ns for frame in frames], frames[0].intrinsics


@pytest.mark.parametrize("named", [".", "mav0", "mav0/cam0", "mav0/cam0/data"])
@pytest.mark.parametrize("index", [True, False])
def test_euroc(tmp_path, named, index):
    stamps = [START + n * 50_000_000 for n in range(4)]
    camera = tmp_path / "mav0/cam0"
    write(camera / "data", [f"{stamp}.png" for stamp in stamps])
    write(tmp_path / "mav0/cam1/data", [f"{stamp}.png" for stamp in stamps])
    if index:
        lines = ["#timestamp [ns],filename", *[f"{stamp},{stamp}.png\r" for stamp in stamps]]
        (camera / "data.csv").write_text("\n".join(lines))
    (camera / "sensor.yaml").write_text(
        f"resolution: [64, 48]\ncamera_model: pinhole\nintrinsics: [{FX}, {FY}, {CX}, {CY}]\n"
        "distortion_model: radial-tangential\ndistortion_coefficients: [0.0, 0.0, 0.0, 0.0]\n"
    )
    numbers, found, K = read(tmp_path / named)
    assert numbers == [0, 1, 2, 3] and found == stamps
    np.testing.assert_allclose(K, OURS)


@pytest.mark.parametrize("named", [".", "image_2"])
def test_kitti_odometry(tmp_path, named):
    write(tmp_path / "image_0", [f"{n:06d}.png" for n in range(4)])
    write(tmp_path / "image_2", [f"{n:06d}.png" for n in range(4)])
    (tmp_path / "times.txt").write_text("0.0\n1.036e-01\n2.07e-01\n3.1e-01\n")
    rows = [f"P{n}: {FX + n} 0 {CX} 0 0 {FY + n} {CY} 0 0 0 1 0" for n in range(4)]
    (tmp_path / "calib.txt").write_text("\n".join(rows))
    numbers, stamps, K = read(tmp_path / named)
    assert numbers == [0, 1, 2, 3] and stamps == [0, 103_600_000, 207_000_000, 310_000_000]
    assert K[0, 0] == FX + 2
    (tmp_path / "times.txt").write_text("0.0\n0.1\n")
    with pytest.raises(BadInput, match="2 stamps for the 4 images"):
        open_source(tmp_path)


def test_kitti_raw(tmp_path):
    write(tmp_path / "drive/image_02/data", [f"{n:010d}.png" for n in range(3)])
    times = [f"2011-09-26 13:02:25.{n}64389445\n" for n in range(3)]
    (tmp_path / "drive/image_02/timestamps.txt").write_text("".join(times))
    matrix = f"P_rect_02: {FX} 0 {CX} 45 0 {FY} {CY} 0 0 0 1 0\n"
    (tmp_path / "calib_cam_to_cam.txt").write_text("calib_time: 09-Jan-2012 13:57:47\n" + matrix)
    numbers, stamps, K = read(tmp_path / "drive")
    assert numbers == [0, 1, 2] and stamps[0] == 1317042145_064389445
    assert np.diff(stamps).tolist() == [100_000_000] * 2
    np.testing.assert_allclose(K, OURS)


def test_seven_scenes_leaves_depth_out(tmp_path):
    write(tmp_path, [f"frame-{n:06d}.color.png" for n in range(3)])
    write(tmp_path, [f"frame-{n:06d}.depth.png" for n in range(3)], np.uint16)
    assert read(tmp_path)[0] == [0, 1, 2]
    assert "3 others (frame-#.depth.png) left out" in open_source(tmp_path).description


def test_nerfstudio_and_colmap_count_pixels_from_the_corner(tmp_path):
    write(tmp_path / "images", [f"frame_{n}.png" for n in (0, 2, 10)])
    camera = {"fl_x": FX, "fl_y": FY, "cx": CX + 0.5, "cy": CY + 0.5, "w": 64, "h": 48}
    frames = [{"file_path": f"images/frame_{n}.png"} for n in (10, 0, 2)]
    (tmp_path / "transforms.json").write_text(json.dumps({**camera, "frames": frames}))
    numbers, _, K = read(tmp_path)
    assert numbers == [0, 1, 2]
    np.testing.assert_allclose(K, OURS)
    (tmp_path / "transforms.json").unlink()
    (tmp_path / "sparse/0").mkdir(parents=True)
    line = f"1 PINHOLE 64 48 {FX} {FY} {CX + 0.5} {CY + 0.5}\n"
    (tmp_path / "sparse/0/cameras.txt").write_text("# Camera list\n" + line)
    for named in (".", "images"):
        numbers, _, K = read(tmp_path / named)
        assert numbers == [0, 1, 2]
        np.testing.assert_allclose(K, OURS)


def test_scannet_replica_and_record3d(tmp_path):
    scan = tmp_path / "scan"
    write(scan / "color", ["0.jpg", "2.jpg", "10.jpg"])
    (scan / "intrinsic").mkdir()
    matrix = f"{FX} 0 {CX} 0\n0 {FY} {CY} 0\n0 0 1 0\n0 0 0 1\n"
    (scan / "intrinsic/intrinsic_color.txt").write_text(matrix)
    room = tmp_path / "replica/room0"
    write(room / "results", [f"frame{n:06d}.jpg" for n in range(3)])
    write(room / "results", [f"depth{n:06d}.png" for n in range(3)], np.uint16)
    (room / "traj.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n" * 3)
    pinhole = {"fx": FX, "fy": FY, "cx": CX, "cy": CY, "w": 64, "h": 48, "scale": 6553.5}
    (tmp_path / "replica/cam_params.json").write_text(json.dumps({"camera": pinhole}))
    phone = tmp_path / "phone"
    write(phone / "rgb", ["0.jpg", "1.jpg", "2.jpg"])
    by_columns = [FX, 0, 0, 0, FY, 0, CX, CY, 1]
    (phone / "metadata").write_text(json.dumps({"K": by_columns, "w": 64, "h": 48, "fps": 60}))
    for folder in (scan, room, phone):
        numbers, stamps, K = read(folder)
        assert numbers == [0, 1, 2]
        np.testing.assert_allclose(K, OURS)
    assert stamps[1] == round(1e9 / 60)


INDEX = {
    "nanoseconds": lambda n: f"{START + n * 50_000_000} rgb/{n}.png",
    "unsorted": lambda n: f"{0.05 * ((n + 2) % 4):.2f} rgb/{(n + 2) % 4}.png",
    "commas": lambda n: f"{0.05 * n:.2f},rgb/{n}.png",
    "backslashes": lambda n: f"{0.05 * n:.2f} rgb\\{n}.png",
    "associations": lambda n: f"{0.05 * n:.2f} rgb/{n}.png {0.05 * n:.2f} depth/{n}.png",
    "before the epoch": lambda n: f"{0.05 * n - 2.1:.2f} rgb/{n}.png",
    "since the start": lambda n: f"{n * 50_000_000} rgb/{n}.png",
}


@pytest.mark.parametrize("form", INDEX)
@pytest.mark.parametrize(
    "encoding, end", [("utf-8-sig", "\r\n"), ("utf-8", "\n"), ("utf-16", "\n")]
)
def test_index_files_of_all_kinds(tmp_path, form, encoding, end):
    write(tmp_path / "rgb", [f"{n}.png" for n in range(4)])
    text = end.join(["timestamp filename", *[INDEX[form](n) for n in range(4)]])
    (tmp_path / "rgb.txt").write_bytes(text.encode(encoding))
    numbers, stamps, _ = read(tmp_path)
    assert numbers == [0, 1, 2, 3]
    assert np.diff(stamps).tolist() == [50_000_000] * 3
    assert stamps[0] == {"nanoseconds": START, "before the epoch": -2_100_000_000}.get(form, 0)


def test_names_with_spaces(tmp_path):
    write(tmp_path / "my pictures", ["shot 0.png", "shot 1.png"])
    (tmp_path / "rgb.txt").write_text("0.1 my pictures/shot 0.png\n0.2 my pictures/shot 1.png\n")
    assert read(tmp_path)[0] == [0, 1]


def test_the_named_folder_wins_over_an_index_above(tmp_path):
    write(tmp_path / "rgb", ["0.png", "1.png"])
    write(tmp_path / "undistorted", ["0.png", "1.png", "2.png"])
    (tmp_path / "rgb.txt").write_text("0.1 rgb/0.png\n0.2 rgb/1.png\n")
    assert read(tmp_path / "undistorted")[0] == [0, 1, 2]
    assert read(tmp_path / "rgb")[1] == [100_000_000, 200_000_000]


def test_numbers_are_in_natural_order_and_other_files_no_images(tmp_path):
    write(tmp_path, [f"frame{n}.jpg" for n in range(12)])
    for junk in ("._frame3.jpg", ".hidden.jpg", "Thumbs.db", "notes.txt"):
        (tmp_path / junk).write_bytes(b"junk")
    write(tmp_path, ["trajectory.png", "frame3_thumb.jpg"])
    (tmp_path / "frame99.jpg").mkdir()
    assert read(tmp_path)[0] == list(range(12))


@pytest.mark.parametrize(
    "groups",
    [("left_{}.png", "right_{}.png"), ("cam0_{}.png", "cam1_{}.png"), ("{}.png", "{}.jpg")],
)
def test_several_sequences_must_be_chosen_from(tmp_path, groups):
    for group in groups:
        write(tmp_path, [group.format(n) for n in range(3)])
    with pytest.raises(BadInput, match="several sequences.*--images"):
        open_source(tmp_path)
    assert read(tmp_path, images=groups[1].format("*"))[0] == [0, 1, 2]
    with pytest.raises(BadInput, match="matches no image"):
        open_source(tmp_path, images="*.gif")


def test_depth_maps_are_no_frames(tmp_path):
    write(tmp_path / "pair", [f"{n}.jpg" for n in range(3)])
    write(tmp_path / "pair", [f"{n}.png" for n in range(3)], np.uint16)
    assert [path.suffix for path in list_images(tmp_path / "pair").paths] == [".jpg"] * 3
    write(tmp_path / "depth", [f"depth_{n}.png" for n in range(3)], np.uint16)
    with pytest.raises(BadInput, match="no colour images"):
        open_source(tmp_path / "depth")


def test_types_that_are_not_read_are_named(tmp_path):
    (tmp_path / "IMG_1.CR2").write_bytes(b"raw")
    with pytest.raises(BadInput, match=r"IMG_1\.CR2; convert"):
        open_source(tmp_path)


def test_several_folders_are_not_chosen_from_in_silence(tmp_path):
    for name in ("kitchen", "hall"):
        write(tmp_path / name, ["0.png", "1.png"])
    with pytest.raises(BadInput, match="hall, kitchen"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "stamps", [["1e400", "2e400"], ["1e30", "2e30"], ["9" * 5000, "1"], ["1e999999999", "1"]]
)
def test_absurd_stamps_are_refused(tmp_path, stamps):
    write(tmp_path / "rgb", ["0.png", "1.png"])
    text = "".join(f"{stamp} rgb/{n}.png\n" for n, stamp in enumerate(stamps))
    (tmp_path / "rgb.txt").write_text(text)
    with pytest.raises(BadInput, match=r"rgb\.txt"):
        open_source(tmp_path)


@pytest.mark.parametrize("form", ["txt", "bin"])
def test_colmap_cameras_that_are_all_alike_are_one(tmp_path, form):
    write(tmp_path / "images", ["1.jpg", "2.jpg"])
    place = tmp_path / "sparse" / "0"
    place.mkdir(parents=True)
    numbers = (50.0, 51.0, 32.5, 24.5)
    if form == "bin":
        cameras = [struct.pack("<iiQQ4d", i, 1, 64, 48, *numbers) for i in (1, 2)]
        (place / "cameras.bin").write_bytes(struct.pack("<Q", 2) + b"".join(cameras))
    else:
        lines = [f"{i} PINHOLE 64 48 50.0 51.0 32.5 24.5\n" for i in (1, 2)]
        (place / "cameras.txt").write_text("# comment\n" + "".join(lines))
    numbers, _, K = read(tmp_path)
    np.testing.assert_allclose(K[:2], [[50, 0, 32.5], [0, 51, 24.5]])
    assert numbers == [0, 1]


@pytest.mark.parametrize("data", [b"", b"\1" * 9, struct.pack("<QiiQQ", 1, 1, 99, 64, 48)])
def test_a_spoilt_binary_of_colmap_is_one_sentence(tmp_path, data):
    write(tmp_path / "images", ["1.jpg"])
    (tmp_path / "cameras.bin").write_bytes(data)
    with pytest.raises(BadInput, match="cameras.bin"):
        open_source(tmp_path)


def test_nerfstudio_as_other_tools_write_it(tmp_path):
    """Without suffixes, with backslashes, and with the camera in every frame."""
    write(tmp_path / "images", ["2.jpg", "10.jpg"])
    camera = {"fl_x": 50, "fl_y": 50, "cx": 32, "cy": 24, "w": 64, "h": 48}
    frames = [{"file_path": f".\\images\\{name}", **camera} for name in ("10", "2")]
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames}))
    numbers, _, K = read(tmp_path)
    assert numbers == [0, 1] and K[0, 0] == 50
    frames[0]["fl_x"] = 60
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames}))
    assert read(tmp_path)[2] is None


def test_the_pictures_of_an_earlier_result_are_no_images(tmp_path):
    write(tmp_path / "walk", ["1.png", "2.png"])
    write(tmp_path / "result", ["trajectory.png", "map_top.png"])
    for name in ("report.json", "trajectory.txt"):
        (tmp_path / "result" / name).write_text("")
    assert read(tmp_path)[0] == [0, 1]


def test_where_images_may_be_meant_is_said(tmp_path):
    write(tmp_path / "DCIM" / "100APPLE", ["IMG_1.JPG"])
    with pytest.raises(BadInput, match="DCIM/100APPLE below it may be meant"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "start", "words"),
    [
        ("a.bin", b"\x89MCAP0\r\n", "give it the suffix .mcap"),
        ("a.sqlite", b"SQLite format 3\0", "give it the suffix .db3"),
        ("a.zip", b"PK\x03\x04", "unpack it"),
        ("rgb.txt", b"0 a.png", "name its folder"),
        ("a.png", cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes(), "one image"),
        ("a.txt", b"hello", "5 bytes begin like none"),
    ],
)
def test_what_a_file_seems_to_be_is_said(tmp_path, name, start, words):
    (tmp_path / name).write_bytes(start)
    with pytest.raises(BadInput, match=f"is not a folder of images, a video.*{words}"):
        open_source(tmp_path / name)
