"""One bad image does not end a run, too many do; a clock that steps back starts a new stretch."""

import pytest

from scal3r_ros.io.bad_images import BadImages
from scal3r_ros.io.source import BadInput, SourceImage
from scal3r_ros.io.stamp_order import sorted_closely, with_jumps
from scal3r_ros.io.stamps import seconds_text
from scal3r_ros.pipeline.offline import replace_pictures, require_apart


def test_a_share_may_be_bad():
    bad = BadImages(0.5, 4)
    bad.note(0, BadInput("0.jpg is cut off"))
    bad.note(2, BadInput("2.jpg is empty"))
    assert 2 in bad and 1 not in bad
    assert bad.finish(4) == "2 of 4 images were left out; the first: 0.jpg is cut off"
    with pytest.raises(BadInput, match=r"3 of 4 images.*input\.max_bad \(0\.5\).*0\.jpg"):
        bad.note(3, BadInput("3.jpg is empty"))
    assert BadImages(0.0, 4).finish(4) == ""


def test_of_a_source_of_unknown_length_the_first_images_are_not_judged_at_once():
    bad = BadImages(0.5, 0)
    for image_id in range(19):
        bad.note(image_id, BadInput("cut off"))
    with pytest.raises(BadInput, match="20 of 20"):
        bad.note(19, BadInput("cut off"))


def jumps(*stamps):
    images = [SourceImage(n, round(s * 1e9), lambda: None) for n, s in enumerate(stamps)]
    found = [(image.id, jumped) for image, jumped in with_jumps(images)]
    assert [image_id for image_id, _ in found] == list(range(len(stamps))), "nothing is thrown away"
    return [image_id for image_id, jumped in found if jumped]


def test_two_older_stamps_are_a_jump_and_one_is_a_stray():
    assert jumps(100, 101, 102, 3, 4, 5) == [3]
    assert jumps(100, 101, 0, 102, 103) == []
    assert jumps(100.0, 100.2, 100.1, 100.3) == []
    assert jumps(100, 101, 0) == []
    assert jumps(-5, -4, -3) == []


def test_what_was_recorded_a_little_late_is_sorted_and_told(caplog):
    def closely(*stamps):
        return [ns // 10**8 for ns, _ in sorted_closely([(s * 10**8, s) for s in stamps], "bag")]

    assert closely(1, 2, 3, 4, 5) == [1, 2, 3, 4, 5] and not caplog.text
    assert closely(2, 1, 3, 6, 5, 4, 7, 9, 8) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert "bag: 4 images came after later ones" in caplog.text
    assert closely(50, 51, 53, 52, 1, 3, 2, 4) == [50, 51, 52, 53, 1, 2, 3, 4], "a clock set back"
    assert closely(50, 51, 0, 52, 53) == [50, 51, 0, 52, 53], "a stray stamp stays where it is"


@pytest.mark.parametrize(
    "stamp_ns, text",
    [(-2_100_000_000, "-2.100000000"), (-1, "-0.000000001"), (1_500_000_000, "1.500000000")],
)
def test_stamps_before_the_epoch_are_written_as_they_are(stamp_ns, text):
    assert seconds_text(stamp_ns) == text


def test_pictures_are_those_of_the_last_run(tmp_path):
    made, out = tmp_path / "work", tmp_path / "out"
    for folder in (made, out):
        folder.mkdir()
    (out / "depth_000007.png").write_bytes(b"old")
    (out / "depth_of_mine.png").write_bytes(b"mine")
    (made / "depth_000011.png").write_bytes(b"new")
    replace_pictures(made, out)
    assert sorted(p.name for p in out.iterdir()) == ["depth_000011.png", "depth_of_mine.png"]


def test_results_never_lie_among_the_images(tmp_path):
    require_apart(tmp_path / "out", [tmp_path / "0.jpg"])
    with pytest.raises(BadInput, match="choose another"):
        require_apart(tmp_path, [tmp_path / "0.jpg"])
