"""Video by its content: files of any suffix, and packets in messages."""

import sys

import numpy as np
import pytest
from packet_videos import encode, h264, packets
from recordings import STORAGE, scene
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from scal3r_ros.io.bag import VIDEO, VIDEO_DEFINITION
from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.source import BadInput

av = pytest.importorskip("av", reason="PyAV is optional")
FRAMES = scene(12)
COMPRESSED = "sensor_msgs/msg/CompressedImage"


def write_packets(folder, made, kind=COMPRESSED, said="h264", storage="mcap"):
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(VIDEO_DEFINITION, VIDEO))
    time, header = store.types["builtin_interfaces/msg/Time"], store.types["std_msgs/msg/Header"]
    with Writer(folder, version=8, storage_plugin=STORAGE[storage]) as writer:
        line = writer.add_connection("/camera/video", kind, typestore=store)
        for number, (frame_id, data) in enumerate(made):
            stamp_ns = FRAMES[frame_id].stamp_ns
            stamp, pixels = time(*divmod(stamp_ns, 10**9)), np.frombuffer(data, np.uint8)
            fields = (stamp, "camera", pixels, said)
            if kind == COMPRESSED:
                fields = (header(stamp, "camera"), said, pixels)
            message = store.serialize_cdr(store.types[kind](*fields), kind)
            writer.write(line, FRAMES[0].stamp_ns + number, message)
    return folder


def check(images, expected):
    found = [(image.stamp_ns, image.decode().rgb) for image in images]
    assert [stamp for stamp, _ in found] == [frame.stamp_ns for frame in expected]
    for (_, ours), frame in zip(found, expected):
        assert np.abs(ours.astype(int) - frame.rgb).mean() < 12


@pytest.mark.parametrize("between", [0, 2])
@pytest.mark.parametrize(
    ("kind", "said", "storage"),
    [(COMPRESSED, "h264", "mcap"), (COMPRESSED, "", "db3"), (VIDEO, "h264", "mcap"),
     (VIDEO, "h264", "db3")],
)  # fmt: skip
def test_packets_are_decoded_with_their_stamps(tmp_path, kind, said, storage, between):
    made = h264(FRAMES, between)
    source = open_source(write_packets(tmp_path / "bag", made, kind, said, storage))
    check(source, FRAMES)
    check(source, FRAMES)  # a second time, from the start


@pytest.mark.parametrize(
    ("codec", "said", "between"),
    [("libx264", "h264", 0), ("libx264", "h264", 2), ("libx265", "h265", 0),
     ("libvpx", "vp8", 0), ("libvpx-vp9", "vp9", 0)],
)  # fmt: skip
def test_no_image_is_made_of_what_a_lost_packet_leaves(tmp_path, codec, said, between):
    """The decoder would fill the gap with older pixels; the next key frame ends it."""
    made = packets(codec, FRAMES, between)
    check(open_source(write_packets(tmp_path / "whole", made, said=said)), FRAMES)
    numbered = codec.startswith("libx")  # others tell a loss by the time that passes
    for number in (0, 1, 3, 4, 7, 11) if numbered else (0, 4, 11):
        left = made[:number] + made[number + 1 :]
        source = open_source(write_packets(tmp_path / f"bag{number}", left, said=said))
        good, bad = [], []
        for image in source:
            try:
                good.append((image.stamp_ns, image.decode().rgb))
            except BadInput as error:
                assert "the key frame before it is missing" in str(error)
                bad.append(image.stamp_ns)
        by_stamp = {frame.stamp_ns: frame for frame in FRAMES}
        for stamp_ns, rgb in good:
            assert np.abs(rgb.astype(int) - by_stamp[stamp_ns].rgb).mean() < 12
        assert len(good) + len(bad) == 11 and len(bad) <= 5
        untouched = range(6, 12) if number < 6 else range(6)
        assert {FRAMES[i].stamp_ns for i in untouched} <= {stamp for stamp, _ in good}


def test_packets_without_any_image_are_named(tmp_path):
    made = [(i, b"\0\0\0\1\x67" + bytes(range(200))) for i in range(4)]
    source = open_source(write_packets(tmp_path / "bag", made))
    assert "4 packets of H.264 video" in source.description
    with pytest.raises(BadInput, match=r"4 packets of H\.264 video, but none of them holds an im"):
        list(source)


def test_without_the_library_packets_are_named(tmp_path, monkeypatch):
    bag = write_packets(tmp_path / "bag", h264(FRAMES[:3]))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BadInput, match=r"H\.264 video, which need the library PyAV: pip install"):
        list(open_source(bag))


CONTAINERS = {
    "clip.MTS": ("mpegts", "mpeg2video"),
    "clip.mp4": ("matroska", "mpeg4"),
    "clip": ("mp4", "mpeg4"),
    "clip.jpg": ("flv", "flv1"),
    "clip.wmv": ("asf", "wmv2"),
    "clip.bin": ("avi", "mpeg4"),
    "clip.gif": ("gif", "gif"),
    "clip.264": ("h264", "libx264"),
}


@pytest.mark.parametrize(("name", "kinds"), CONTAINERS.items())
def test_files_are_known_by_their_content(tmp_path, name, kinds):
    container, codec = kinds
    with av.open(str(tmp_path / name), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = FRAMES[0].rgb.shape[:2]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for packet in encode(stream, FRAMES):
            file.mux(packet)
    images = [image.decode() for image in open_source(tmp_path / name)]
    assert len(images) == len(FRAMES)
    stamps = np.diff([image.stamp_ns for image in images])
    assert np.allclose(stamps, 40_000_000, atol=2_000_000)
    assert np.abs(images[5].rgb.astype(int) - FRAMES[5].rgb).mean() < 40


@pytest.mark.parametrize("start", [b"#EXTM3U\nhttp://localhost/a.ts\n", b"ffconcat version 1.0\n",
                                   b"", b"\xff\xd8\xff\xe0 a photo"])  # fmt: skip
def test_what_is_no_video_does_not_reach_the_decoder(tmp_path, start):
    path = tmp_path / "clip.mp4"
    path.write_bytes(start)
    with pytest.raises(BadInput, match="is not a folder of images, a video"):
        open_source(path)


def test_a_video_of_too_many_pixels_is_refused(tmp_path):
    with av.open(str(tmp_path / "clip.avi"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for packet in encode(stream, FRAMES[:3]):
            file.mux(packet)
    with pytest.raises(BadInput, match=r"declares 64 x 48 pixels, more than input\.max_pixels"):
        open_source(tmp_path / "clip.avi", max_pixels=3000)
