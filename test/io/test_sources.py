"""Folder, video and bag give the same frames; whatever is wrong with them is said in one line."""

import cv2
import numpy as np
import pytest
from recordings import scene, write_bag, write_camera_info, write_folder, write_video

from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.source import BadInput

K = np.array([[50.0, 0, 31.5], [0, 52.0, 23.5], [0, 0, 1]])
FRAMES = scene()


def read(path, **options):
    return [image.decode() for image in open_source(path, **options)]


def same(found, expected, tolerance=0):
    assert [f.stamp_ns for f in found] == [f.stamp_ns for f in expected]
    assert [f.id for f in found] == list(range(len(expected)))
    for ours, theirs in zip(found, expected):
        assert np.abs(ours.rgb.astype(int) - theirs.rgb).max() <= tolerance


def test_folder_with_stamps_and_calibration(tmp_path):
    write_folder(tmp_path, FRAMES)
    write_camera_info(tmp_path / "camera_info.yaml", K, 64, 48)
    found = read(tmp_path)
    same(found, FRAMES)
    expected = K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    np.testing.assert_allclose(found[0].intrinsics, expected)
    same(read(tmp_path / "rgb"), FRAMES)


def test_folder_without_stamps_gets_them_at_the_given_rate(tmp_path):
    write_folder(tmp_path, FRAMES, stamps=False)
    found = read(tmp_path / "rgb", rate=4.0)
    assert [f.stamp_ns for f in found] == [i * 250_000_000 for i in range(6)]
    assert found[0].intrinsics is None
    assert "made up at 4 Hz" in open_source(tmp_path / "rgb", rate=4.0).description


@pytest.mark.parametrize("storage", ["db3", "mcap"])
@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "compressed"])
def test_bags_as_folder_and_as_file(tmp_path, storage, compressed):
    bag = write_bag(tmp_path / "bag", FRAMES, storage, compressed, K)
    same(read(bag), FRAMES)
    (single,) = bag.glob(f"*.{storage}")
    found = read(single)
    same(found, FRAMES)
    np.testing.assert_allclose(found[0].intrinsics[:2, 2], [32.0, 24.0])
    (bag / "metadata.yaml").unlink()
    same(read(bag), FRAMES)


def test_video(tmp_path):
    found = read(write_video(tmp_path / "clip.mp4", FRAMES))
    assert len(found) == 6
    assert [f.stamp_ns for f in found] == pytest.approx([i * 10**8 for i in range(6)], abs=2e6)
    for ours, theirs in zip(found, FRAMES):
        assert np.abs(ours.rgb.astype(int) - theirs.rgb).mean() < 6


def test_sources_can_be_read_twice(tmp_path):
    for path in (
        write_folder(tmp_path / "folder", FRAMES),
        write_bag(tmp_path / "bag", FRAMES),
        write_video(tmp_path / "clip.avi", FRAMES, codec="MJPG"),
    ):
        source = open_source(path)
        assert len([i.stamp_ns for i in source]) == len(source) == 6
        assert [f.rgb.sum() for f in read(path)] == [i.decode().rgb.sum() for i in source]


def test_lens_distortion_is_removed(tmp_path):
    write_folder(tmp_path, FRAMES)
    distortion = (-0.3, 0.1, 0.0, 0.0, 0.0)
    write_camera_info(tmp_path / "camera_info.yaml", K, 64, 48, distortion)
    found = read(tmp_path)
    expected = cv2.undistort(FRAMES[0].rgb, K, np.array(distortion))
    assert np.abs(found[0].rgb.astype(int) - expected).max() <= 2
    assert np.abs(found[0].rgb.astype(int) - FRAMES[0].rgb).max() > 20


def test_several_image_topics_must_be_chosen_from(tmp_path):
    bag = write_bag(tmp_path / "bag", FRAMES, more_topics=("/right/image_raw",))
    with pytest.raises(BadInput, match=r"several image topics.*--topic: /camera/image_raw \(6\)"):
        open_source(bag)
    same(read(bag, topic="/right/image_raw"), FRAMES)
    with pytest.raises(BadInput, match="no images on /left; image topics: /camera/image_raw"):
        open_source(bag, topic="/left")


def test_depth_topics_are_not_taken_for_colour(tmp_path):
    bag = write_bag(tmp_path / "bag", FRAMES, more_topics=("/camera/depth/image",))
    assert open_source(bag).topic == "/camera/image_raw"


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def test_nothing_there(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        open_source(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no images"):
        open_source(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match="not a folder of images, a video"):
        open_source(tmp_path / "notes.txt")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_cut_and_unreadable_images(tmp_path, suffix):
    write_folder(tmp_path, FRAMES, suffix=suffix)
    cut(tmp_path / f"rgb/000003.{suffix}")
    with pytest.raises(BadInput, match=rf"000003.{suffix} is cut off"):
        read(tmp_path)
    (tmp_path / f"rgb/000003.{suffix}").write_text("no image at all")
    with pytest.raises(BadInput, match=rf"000003.{suffix} is no readable image"):
        read(tmp_path)
    (tmp_path / f"rgb/000003.{suffix}").write_bytes(b"")
    with pytest.raises(BadInput, match=rf"000003.{suffix} is empty"):
        read(tmp_path)


def test_mixed_sizes(tmp_path):
    write_folder(tmp_path, FRAMES)
    cv2.imwrite(str(tmp_path / "rgb/000004.png"), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(BadInput, match=r"000004.png is 30 x 20, but most images are 64 x 48"):
        read(tmp_path)


@pytest.mark.parametrize(
    "line, message",
    [
        ("100.2 rgb/000003.png", "line 5: 000003.png repeats the stamp"),
        ("rgb/000003.png", "line 5: expected `seconds file`"),
        ("100.3", "line 5: expected `seconds file`"),
        ("nan rgb/000003.png", "line 5: expected `seconds file`"),
        ("100.3 rgb/absent.png", "rgb/absent.png does not exist"),
    ],
)
def test_bad_stamps(tmp_path, line, message):
    write_folder(tmp_path, FRAMES)
    lines = (tmp_path / "rgb.txt").read_text().splitlines()
    (tmp_path / "rgb.txt").write_text("\n".join([*lines[:4], line, *lines[5:]]))
    with pytest.raises(BadInput, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "image_width: 64",
        "image_width: 64\nimage_height: 48\ncamera_matrix: {data: [1]}",
    ],
)
def test_bad_calibration_files(tmp_path, text):
    write_folder(tmp_path, FRAMES)
    (tmp_path / "camera_info.yaml").write_text(text)
    with pytest.raises(BadInput, match="camera_info.yaml"):
        open_source(tmp_path)


def test_calibration_of_another_image_size(tmp_path):
    write_folder(tmp_path, FRAMES)
    write_camera_info(tmp_path / "camera_info.yaml", K, 640, 360)
    with pytest.raises(BadInput, match="is for images of 640 x 360, found 64 x 48"):
        read(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.97])
@pytest.mark.parametrize("storage", ["db3", "mcap"])
def test_cut_bags(tmp_path, storage, share):
    bag = write_bag(tmp_path / "bag", scene(40), storage)
    (single,) = bag.glob(f"*.{storage}")
    cut(single, share)
    for path in (bag, single):
        with pytest.raises(BadInput, match=r"cut off|holds no images"):
            read(path)


def test_bag_without_images(tmp_path):
    empty = write_bag(tmp_path / "empty", [])
    with pytest.raises(BadInput, match="holds no images"):
        open_source(empty)


@pytest.mark.parametrize("storage", ["db3", "mcap"])
def test_a_recording_may_start_at_time_zero(tmp_path, storage):
    start = FRAMES[0].stamp_ns
    shifted = [type(f)(f.id, f.stamp_ns - start, f.rgb) for f in FRAMES]
    found = read(write_bag(tmp_path / "bag", shifted, storage))
    assert [frame.stamp_ns for frame in found] == [frame.stamp_ns for frame in shifted]
    for one, other in zip(found, shifted):
        np.testing.assert_array_equal(one.rgb, other.rgb)


def test_bad_videos(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(BadInput, match="is not a folder of images, a video"):
        open_source(tmp_path / "text.mp4")
    clip = write_video(tmp_path / "clip.avi", scene(40), codec="MJPG")
    cut(clip, 0.4)
    with pytest.raises(BadInput, match=r"cut off|no readable video|cannot be decoded"):
        read(clip)
    assert clip.exists()


def test_topic_for_something_that_is_no_bag(tmp_path):
    write_folder(tmp_path, FRAMES)
    with pytest.raises(BadInput, match="is no bag, so it has no topic"):
        open_source(tmp_path, topic="/camera")
