"""Bags as they are found: cut, split, renamed, without metadata or stamps, of ROS 1."""

import pytest
from recordings import scene, write_bag, write_video

from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.source import BadInput
from scal3r_ros.records import Frame

FRAMES = scene()


def stamps(path):
    return [image.decode().stamp_ns for image in open_source(path)]


EXPECTED = [frame.stamp_ns for frame in FRAMES]


@pytest.mark.parametrize("metadata", [b"", b"a: [", b"other: 1\n", None])
def test_broken_metadata_beside_a_good_file(tmp_path, metadata):
    bag = write_bag(tmp_path / "bag", FRAMES)
    path = bag / "metadata.yaml"
    path.unlink() if metadata is None else path.write_bytes(metadata)
    assert stamps(bag) == EXPECTED


def test_a_renamed_file_and_parts_without_metadata(tmp_path):
    bag = write_bag(tmp_path / "bag", FRAMES[:3])
    next(bag.glob("*.mcap")).rename(bag / "kitchen 2.mcap")
    assert stamps(bag) == EXPECTED[:3]
    other = write_bag(tmp_path / "other", FRAMES[3:])
    next(other.glob("*.mcap")).rename(bag / "kitchen 10.mcap")
    (bag / "metadata.yaml").unlink()
    assert stamps(bag) == EXPECTED


def test_a_cut_mcap_is_read_as_far_as_it_goes(tmp_path):
    bag = write_bag(tmp_path / "bag", FRAMES)
    path = next(bag.glob("*.mcap"))
    whole = path.read_bytes()
    read = 0
    path.write_bytes(whole[:60])
    with pytest.raises(BadInput, match="before its first message.*mcap recover"):
        open_source(bag)
    for share in (0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        try:
            for image in open_source(bag):
                assert image.decode().stamp_ns == EXPECTED[image.id]
                read += 1
        except BadInput as error:
            assert "mcap recover" in str(error)
        else:
            raise AssertionError("a cut recording was taken for a whole one")


def test_without_header_stamps_the_times_of_recording_are_used(tmp_path, caplog):
    bag = write_bag(tmp_path / "bag", [Frame(f.id, 0, f.rgb) for f in FRAMES])
    with caplog.at_level("WARNING"):
        list(open_source(bag))
    assert "no header stamps" in caplog.text


@pytest.mark.parametrize("compressed", [False, True])
def test_an_odd_first_image_is_the_odd_one(tmp_path, compressed):
    odd = Frame(0, FRAMES[0].stamp_ns, FRAMES[0].rgb[:20, :30].copy())
    bag = write_bag(tmp_path / "bag", [odd, *FRAMES[1:]], compressed=compressed)
    first, *rest = open_source(bag)
    with pytest.raises(BadInput, match="30 x 20, but most images are 64 x 48"):
        first.decode()
    assert len(rest) == len(FRAMES) - 1 and all(image.decode() for image in rest)


def test_other_kinds_are_named(tmp_path):
    (tmp_path / "drive.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(BadInput, match="ROS 1 bag.*rosbags-convert"):
        open_source(tmp_path / "drive.bag")
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / "bag.db3.zstd").write_bytes(b"(\xb5/\xfd")
    with pytest.raises(BadInput, match="compressed bag without metadata.*zstd -d"):
        open_source(folder)
    head = b"\x89MCAP0\r\n\x01" + (12).to_bytes(8, "little") + (4).to_bytes(4, "little") + b"ros1"
    (tmp_path / "old.mcap").write_bytes(head + bytes(4) + b"\x89MCAP0\r\n")
    with pytest.raises(BadInput, match="ROS 1"):
        open_source(tmp_path / "old.mcap")


def test_a_video_is_cut_off_only_if_its_container_says_so(tmp_path):
    clip = write_video(tmp_path / "clip.avi", FRAMES, codec="MJPG")
    whole = clip.read_bytes()
    at = whole.index(b"avih") + 24  # number of frames, here as after a careless cut
    clip.write_bytes(whole[:at] + (400).to_bytes(4, "little") + whole[at + 4 :])
    assert len(stamps(clip)) == len(FRAMES)
