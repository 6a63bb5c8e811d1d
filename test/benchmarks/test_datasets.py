"""Nine native layouts: poses and depth are read as they are meant, whatever the format's quirks."""

from dataclasses import replace

import numpy as np
import pytest
from miniatures import (
    ENLARGED,
    FISHEYE,
    HEIGHT,
    TRUTH,
    WIDTH,
    WRITERS,
    seen_along,
    small_city,
    true_depth,
)

from scal3r_ros import rigid
from scal3r_ros.benchmarks.registry import DATASETS
from scal3r_ros.benchmarks.self_check import check_poses
from scal3r_ros.benchmarks.sequence import SequenceSource
from scal3r_ros.io.source import BadInput

WITH_DEPTH = ("vkitti2", "tum", "7scenes", "scannet", "eth3d")


@pytest.fixture(scope="module")
def city():
    return small_city()


@pytest.fixture(scope="module")
def roots(city, tmp_path_factory):
    """Root and sequence name of every miniature; nobody may change them."""
    made = {}
    for name, write in WRITERS.items():
        root = tmp_path_factory.mktemp("data_" + name)
        made[name] = root, write(root, city)
    return made


def test_every_data_set_has_a_miniature():
    assert set(WRITERS) == set(DATASETS) == set(TRUTH)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_poses_are_the_true_ones_of_the_camera(roots, city, name):
    root, wanted = roots[name]
    dataset = DATASETS[name]
    assert list(dataset.find(root)) == [wanted]
    sequence = dataset.read(root, wanted)
    missed = 1 if name == "oxford-spires" else 0  # before the truth begins
    assert len(sequence.pictures) == len(city) - missed
    assert sum(sequence.dropped.values()) == (1 if name in ("oxford-spires", "scannet") else 0)
    assert len(sequence.truth) == len(city) - (name in ("oxford-spires", "scannet"))
    first = rigid.inverse(sequence.truth[0]) @ np.stack([*sequence.truth.values()])
    true = rigid.inverse(city.T_world_camera[missed])
    true = true @ city.T_world_camera[[i + missed for i in sequence.truth]]
    np.testing.assert_allclose(first, true, atol=2e-6)
    frames = [image.decode() for image in SequenceSource(sequence)]
    assert [f.stamp_ns for f in frames] == sorted({f.stamp_ns for f in frames})
    if name == "tum":
        assert frames[0].intrinsics[0, 0] == 535.4  # of the third Kinect
    elif name == "7scenes":
        assert frames[0].intrinsics[0, 0] == 585.0  # of the depth camera
    elif name != "oxford-spires":
        assert frames[0].intrinsics[0, 0] == pytest.approx(city.focal)
        np.testing.assert_allclose(frames[0].intrinsics[:2, 2], [WIDTH / 2, HEIGHT / 2])


@pytest.mark.parametrize("name", WITH_DEPTH)
def test_depth_is_in_metres_and_unknown_where_nothing_was_measured(roots, city, name):
    root, wanted = roots[name]
    sequence = DATASETS[name].read(root, wanted)
    found, true = sequence.depth(2), true_depth(city)[2]
    if name in ("tum", "7scenes"):
        found = found[ENLARGED // 2 :: ENLARGED, ENLARGED // 2 :: ENLARGED]
    known = np.isfinite(found)
    assert known.mean() > 0.1 and not known[~np.isfinite(true)].any()
    np.testing.assert_allclose(found[known], true[known], atol=0.006)


@pytest.mark.parametrize("name", ("vkitti2", "scannet", "eth3d"))
def test_poses_the_wrong_way_round_are_caught(roots, name):
    root, wanted = roots[name]
    sequence = DATASETS[name].read(root, wanted)
    assert check_poses(sequence) > 0.5
    wrong = {i: rigid.inverse(T) for i, T in sequence.truth.items()}
    with pytest.raises(BadInput, match="world-to-camera poses"):
        check_poses(replace(sequence, truth=wrong))


@pytest.mark.parametrize("name", sorted(WRITERS))
@pytest.mark.parametrize("damage", ["missing", "short", "garbage"])
def test_a_damaged_truth_is_told_in_a_sentence(city, tmp_path, name, damage):
    wanted = WRITERS[name](tmp_path, small_city(4))
    path = tmp_path / TRUTH[name]
    if damage == "missing":
        path.unlink()
    else:
        path.write_text("1 2\n3 x\n" if damage == "garbage" else path.read_text()[:9])
    dataset = DATASETS[name]
    try:
        dataset.find(tmp_path)
        sequence = dataset.read(tmp_path, wanted)
    except BadInput as error:
        assert str(tmp_path) in str(error)
    else:  # one pose of many is gone: counted
        assert sum(sequence.dropped.values()) >= 1


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_another_folder_is_told_from_the_data_set(tmp_path, name):
    with pytest.raises(BadInput, match="expected"):
        DATASETS[name].find(tmp_path)


def test_the_fisheye_becomes_the_pinhole_view(roots):
    root, wanted = roots["oxford-spires"]
    sequence = DATASETS["oxford-spires"].read(root, wanted)
    frame = next(iter(SequenceSource(sequence))).decode()
    focal, centre = FISHEYE[0][0, 0], (WIDTH / 2 + 0.5, HEIGHT / 2 + 0.5)
    np.testing.assert_allclose(frame.intrinsics[:2], [[focal, 0, centre[0]], [0, focal, centre[1]]])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([columns - centre[0], rows - centre[1]], axis=-1) / focal
    middle = np.s_[10:-10, 10:-10]
    off = np.abs(frame.rgb[middle].astype(float) - seen_along(rays)[middle])
    assert off.mean() < 3 and off.max() < 25  # JPEG and bilinear
