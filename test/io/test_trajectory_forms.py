"""Ground truth as other programs write it is read, or refused in a sentence."""

import numpy as np
import pytest

from scal3r_ros import rigid
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.pipeline.evaluation import score_trajectory

ROW = "1 2 3 0 0 0.6 0.8"
STAMPS = [1_500_000_000_000_000_000 + n * 100_000_000 for n in range(3)]
SECONDS = [f"{stamp // 10**9}.{stamp % 10**9:09d}" for stamp in STAMPS]


def joined(separator: str, times, row: str = ROW, head: str = "") -> str:
    return head + "\n".join(separator.join([str(t), *row.split()]) for t in times)


READ = {
    "plain": joined(" ", SECONDS),
    "commas": joined(",", SECONDS),
    "commas and spaces": joined(", ", SECONDS),
    "header": joined(" ", SECONDS, head="timestamp tx ty tz qx qy qz qw\n"),
    "matlab": joined(" ", SECONDS, head="% produced\n"),
    "byte order mark": "\ufeff" + joined("\t", SECONDS),
    "nanoseconds": joined(" ", STAMPS),
    "EuRoC": joined(",", STAMPS, "1 2 3 0.8 0 0 0.6" + 9 * " 0", "#timestamp, p_RS_R_x [m]\n"),
}


@pytest.mark.parametrize("form", READ)
def test_forms(tmp_path, form):
    (tmp_path / "t.txt").write_text(READ[form])
    stamps, poses = read_trajectory(tmp_path / "t.txt")
    assert stamps.tolist() == STAMPS
    np.testing.assert_allclose(poses[1, :3, 3], [1, 2, 3])
    np.testing.assert_allclose(poses[1, :2, 0], [0.28, 0.96], atol=1e-12)


def test_kitti_rows_take_the_times_of_their_sequence(tmp_path):
    (tmp_path / "poses").mkdir()
    path = tmp_path / "poses/00.txt"
    path.write_text("1 0 0 4 0 1 0 5 0 0 1 6\n" * 2)
    with pytest.raises(BadInput, match="12 numbers, which tell no time"):
        read_trajectory(path)
    (tmp_path / "sequences/00").mkdir(parents=True)
    (tmp_path / "sequences/00/times.txt").write_text("0.0\n1.036e-01\n")
    stamps, poses = read_trajectory(path)
    assert stamps.tolist() == [0, 103_600_000] and poses[1, :3, 3].tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    "row", ["0 1 2 3 0 0 0 0", "0 nan 2 3 0 0 0 1", "0 1 2 3 0 0 0 1 9", "0 1", "x 1 2 3 0 0 0 1",
            "1e300 1 2 3 0 0 0 1", "0 1e400 2 3 0 0 0 1", "99999999999 1 2 3 0 0 0 1"]
)  # fmt: skip
def test_what_is_no_pose_is_refused(tmp_path, row):
    (tmp_path / "t.txt").write_text(f"0.5 {ROW}\n{row}\n")
    with pytest.raises(BadInput, match=r"t\.txt"):
        read_trajectory(tmp_path / "t.txt")


def test_a_scalar_that_comes_first_is_suspected_aloud(tmp_path, caplog):
    rng = np.random.default_rng(0)
    angles = np.cumsum(rng.uniform(0, 0.1, (20, 2)), axis=0)
    rows = []
    for n, (yaw, tilt) in enumerate(angles):
        turn = rigid.rotation_matrix(
            np.array([np.sin(tilt), np.cos(tilt) * np.sin(yaw), 0, np.cos(tilt) * np.cos(yaw)])
        )
        rows.append((0.1 * n, rng.uniform(size=3), rigid.quaternion(turn)))
    for name, shift in (("ours", 0), ("theirs", 1)):
        lines = [" ".join(map(str, [t, *at, *np.roll(q, shift)])) for t, at, q in rows]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    score_trajectory(tmp_path / "ours.txt", tmp_path / "ours.txt")
    assert not caplog.records
    score_trajectory(tmp_path / "ours.txt", tmp_path / "theirs.txt")
    assert "qw qx qy qz" in caplog.text


def test_how_far_apart_in_time_poses_are_is_told(tmp_path):
    for name, late in (("ours.txt", 0.0), ("truth.txt", 0.03)):
        rows = [f"{i + late} {i} 0 {i % 2} 0 0 0 1" for i in range(5)]
        (tmp_path / name).write_text("\n".join(rows))
    with pytest.raises(BadInput, match="the nearest are 0.03 s apart.*--max-difference"):
        score_trajectory(tmp_path / "ours.txt", tmp_path / "truth.txt")
