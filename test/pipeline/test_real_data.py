"""Real recordings through structure from motion: accurate, the same from every kind of input, and
silent where nothing can be known."""

import json
import shutil

import numpy as np
import pytest
from recordings import write_bag, write_folder, write_video

from scal3r_ros.config import Config
from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline import offline
from scal3r_ros.pipeline.evaluation import score_trajectory
from scal3r_ros.reconstruct.factory import PRESETS, open_reconstructor

pytest.importorskip("pycolmap", reason="pycolmap is absent")
pytestmark = [pytest.mark.real_data, pytest.mark.slow, pytest.mark.timeout(900)]
ALLOWED_PERCENT = 0.5


def reconstruct(path, out, features="sift", dense=False, **options):
    """Without dense depth, which takes most of the time and changes only how chunks are joined."""
    chosen = {"model.reconstructor": "sfm", "sfm.features": features, "sfm.dense": dense}
    settings = PRESETS["sfm"] | chosen
    config = from_dict(Config, settings)
    source = open_source(path, **options)
    return offline.run(config, source, open_reconstructor(config), out)


@pytest.fixture(scope="module")
def kitti(data_dir):
    return data_dir / "kitti_06_start"


@pytest.fixture(scope="module")
def from_folder(kitti, tmp_path_factory):
    out = tmp_path_factory.mktemp("folder")
    reconstruct(kitti, out)
    return out


@pytest.fixture(scope="module")
def frames(kitti):
    return [image.decode() for image in open_source(kitti)]


def test_kitti_in_overlapping_chunks(kitti, from_folder):
    report = json.loads((from_folder / "report.json").read_text())
    assert report["counters"]["chunks"] >= 3 and len(report["parts"]) == 1
    score, _, _ = score_trajectory(from_folder / "trajectory.txt", kitti / "groundtruth.txt")
    assert score.frames == 51
    assert score.ate_percent <= ALLOWED_PERCENT, score
    assert report["parts"][0]["points"] > 1000


@pytest.mark.parametrize("storage", ["db3", "mcap"])
def test_kitti_from_a_bag_gives_the_same_frames(frames, tmp_path, storage):
    bag = bag_of(frames, tmp_path / "bag", storage)
    read = [image.decode() for image in open_source(bag)]
    assert len(read) == len(frames)
    for ours, theirs in zip(read, stamped(frames)):
        assert (ours.id, ours.stamp_ns) == (theirs.id, theirs.stamp_ns)
        np.testing.assert_array_equal(ours.rgb, theirs.rgb)
        np.testing.assert_allclose(ours.intrinsics, theirs.intrinsics, rtol=1e-12)


def test_kitti_from_a_bag_gives_the_same_map(kitti, frames, tmp_path):
    few = frames[:12]
    folder = write_folder(tmp_path / "folder", few)
    shutil.copy(kitti / "camera_info.yaml", folder)
    outs = [tmp_path / "of_bag", tmp_path / "of_folder"]
    for source, out in zip([bag_of(few, tmp_path / "bag", "db3"), folder], outs):
        reconstruct(source, out)
    ours, theirs = (read_trajectory(out / "trajectory.txt") for out in outs)
    assert len(ours[1]) == 12
    np.testing.assert_array_equal(ours[1], theirs[1])
    assert (outs[0] / "map.ply").read_bytes() == (outs[1] / "map.ply").read_bytes()


def test_kitti_from_a_lossy_video(kitti, frames, tmp_path):
    """The first part of the drive: the lossy images are what matters."""
    video = write_video(tmp_path / "drive.mp4", frames[:30], rate=10.0)
    reconstruct(video, tmp_path / "out", camera_info=kitti / "camera_info.yaml")
    stamps, poses = read_trajectory(tmp_path / "out" / "trajectory.txt")
    assert len(poses) == 30
    truth = (kitti / "groundtruth.txt").read_text().splitlines()
    truth = [line for line in truth if not line.startswith("#")]
    restamped = [f"{s * 1e-9:.9f} {line.split(maxsplit=1)[1]}" for s, line in zip(stamps, truth)]
    (tmp_path / "truth.txt").write_text("\n".join(restamped))
    score, _, _ = score_trajectory(tmp_path / "out/trajectory.txt", tmp_path / "truth.txt")
    assert score.frames == 30 and score.ate_percent <= ALLOWED_PERCENT, score


def test_wide_steps_over_weak_texture_give_one_map(data_dir, tmp_path):
    """SIFT registers nothing here; with learned features there is one map, whether the images
    come from a bag or a folder."""
    pytest.importorskip("torch")
    bag, folder = data_dir / "bags" / "tum_fr3_cabinet", data_dir / "tum_fr3_cabinet"
    for ours, theirs in zip(open_source(bag), open_source(folder), strict=True):
        assert ours.stamp_ns == theirs.stamp_ns
        np.testing.assert_array_equal(ours.decode().rgb, theirs.decode().rgb)
        np.testing.assert_allclose(ours.decode().intrinsics, theirs.decode().intrinsics)
    outcome = reconstruct(bag, tmp_path, features="both", dense=True)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counters"]["frames"] == 58 and len(report["parts"]) == 1, report["events"]
    assert outcome.frames >= 55
    score, _, _ = score_trajectory(tmp_path / "trajectory.txt", folder / "groundtruth.txt")
    assert score.ate_percent <= 2.0, score
    assert report["parts"][0]["points"] > 100_000


def test_too_little_texture_is_reported_and_no_wrong_pose_published(data_dir, tmp_path):
    outcome = reconstruct(data_dir / "tum_fr3_cabinet", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    failed = [e for e in report["events"] if e[0] == "chunk_failed"]
    assert len(failed) == report["counters"].get("chunk_failed", 0) > 0
    assert all(str(index) in message for _, index, message in failed)
    for path in outcome.files:
        if path.name.startswith("trajectory") and path.suffix == ".txt" and outcome.frames:
            truth = data_dir / "tum_fr3_cabinet" / "groundtruth.txt"
            score, _, _ = score_trajectory(path, truth)
            assert score.ate_percent < 2.0, score


def test_a_hand_held_sequence_runs_through(data_dir, tmp_path):
    outcome = reconstruct(data_dir / "7scenes_office_nogt", tmp_path)
    assert outcome.frames >= 40


def stamped(frames):
    """A bag needs stamps other than zero."""
    return [type(f)(f.id, f.stamp_ns + 10**9, f.rgb, f.intrinsics) for f in frames]


def bag_of(frames, path, storage):
    """A bag with calibration, in the pixel rule of ROS; compressed where it is a db3 file."""
    intrinsics = frames[0].intrinsics - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return write_bag(path, stamped(frames), storage, storage == "db3", intrinsics)
