"""Files that we write, read by others; and never half a file."""

import errno
import os

import numpy as np
import pytest
from plyfile import PlyData
from scipy.spatial.transform import Rotation

from scal3r_ros.files import SaveFailed, atomic_file, write_text
from scal3r_ros.io.map_store import BadMapFile, read_map, write_map
from scal3r_ros.io.ply import read_points, write_cloud
from scal3r_ros.io.report import write_report
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.tum import read_trajectory, write_trajectory
from scal3r_ros.records import TrajectoryPose

XYZ = "property float x\nproperty float y\nproperty float z"


def poses(count=50):
    random = np.random.default_rng(0)
    result = []
    for i, rotation in enumerate(Rotation.random(count, random_state=1).as_matrix()):
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = rotation, random.standard_normal(3) * 100
        stamp = 1_700_000_000_000_000_001 + i * 33_333_333
        result.append(TrajectoryPose(i, stamp, T, np.eye(6), 1.0, 0, False))
    return result


def test_trajectory_keeps_nanoseconds_and_poses(tmp_path):
    written = poses()
    write_trajectory(tmp_path / "t.txt", written)
    stamps, matrices = read_trajectory(tmp_path / "t.txt")
    assert stamps.tolist() == [p.stamp_ns for p in written]
    np.testing.assert_allclose(matrices, [p.T_map_camera for p in written], atol=1e-6)
    table = np.loadtxt(tmp_path / "t.txt")
    np.testing.assert_allclose(
        Rotation.from_quat(table[:, 4:]).as_matrix(),
        [p.T_map_camera[:3, :3] for p in written],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "text", ["", "1 2 3\n", "a 0 0 0 0 0 0 1\n", "1 0 0 0 0 0 0 0\n", "1 nan 0 0 0 0 0 1\n"]
)
def test_bad_trajectory_files(tmp_path, text):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(BadInput, match="t.txt"):
        read_trajectory(tmp_path / "t.txt")


def test_cloud_is_read_by_plyfile_and_by_us(tmp_path):
    random = np.random.default_rng(0)
    points = random.standard_normal((100, 3)).astype(np.float32)
    colors = random.integers(0, 256, (100, 3)).astype(np.uint8)
    confidence = random.random(100).astype(np.float32)
    write_cloud(tmp_path / "c.ply", points, colors, confidence, "a note")
    data = PlyData.read(str(tmp_path / "c.ply"))
    vertex = data["vertex"]
    np.testing.assert_array_equal(np.stack([vertex[a] for a in "xyz"], 1), points)
    np.testing.assert_array_equal(
        np.stack([vertex[c] for c in ("red", "green", "blue")], 1), colors
    )
    np.testing.assert_array_equal(vertex["confidence"], confidence)
    assert data.comments == ["a note"] and not data.text
    np.testing.assert_array_equal(read_points(tmp_path / "c.ply"), points.astype(np.float64))
    PlyData([vertex], text=True).write(str(tmp_path / "ascii.ply"))
    np.testing.assert_allclose(read_points(tmp_path / "ascii.ply"), points, rtol=1e-6)
    PlyData([vertex], byte_order=">").write(str(tmp_path / "big.ply"))
    np.testing.assert_array_equal(read_points(tmp_path / "big.ply"), points.astype(np.float64))


def test_bad_clouds(tmp_path):
    points = np.zeros((10, 3), np.float32)
    write_cloud(tmp_path / "c.ply", points, points.astype(np.uint8), points[:, 0])
    (tmp_path / "cut.ply").write_bytes((tmp_path / "c.ply").read_bytes()[:-20])
    with pytest.raises(BadInput, match="cut off"):
        read_points(tmp_path / "cut.ply")
    (tmp_path / "text.ply").write_text("hello")
    with pytest.raises(BadInput, match="no PLY file"):
        read_points(tmp_path / "text.ply")


def test_a_write_that_fails_leaves_the_older_file_and_no_debris(tmp_path):
    target = tmp_path / "report.json"
    write_text(target, "older")
    with pytest.raises(KeyboardInterrupt), atomic_file(target) as file:
        file.write(b"half of the new")
        raise KeyboardInterrupt
    with pytest.raises(SaveFailed, match="disk is full.*--resume"), atomic_file(target) as file:
        file.write(b"half of the new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert target.read_text() == "older" and os.listdir(tmp_path) == ["report.json"]


def test_a_full_disk_is_reported(tmp_path):
    """/dev/full takes no byte; a rename onto it is not tried because writing fails before."""
    target = tmp_path / "map.npz"
    write_map(target, {"x": np.zeros(3)}, {"a": 1})
    before = target.read_bytes()
    with pytest.raises(SaveFailed, match="disk is full"), atomic_file(target) as file:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fileno())
        os.close(full)
        np.savez(file, x=np.zeros(1_000_000))
    assert target.read_bytes() == before and os.listdir(tmp_path) == ["map.npz"]


def test_an_output_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(SaveFailed, match="cannot write"):
        write_text(tmp_path / "out" / "report.json", "x")


def test_map_file_round_trip_and_versions(tmp_path):
    arrays = {"a.b": np.arange(6).reshape(2, 3), "names": np.array(["x", "yz"])}
    write_map(tmp_path / "m.npz", arrays, {"n": 3, "list": [1, None]})
    found, facts = read_map(tmp_path / "m.npz")
    assert facts == {"version": 1, "n": 3, "list": [1, None]} and set(found) == set(arrays)
    np.testing.assert_array_equal(found["a.b"], arrays["a.b"])
    write_map(tmp_path / "old.npz", {}, {"version": 0})
    with pytest.raises(BadMapFile, match="format 0, this program reads 1"):
        read_map(tmp_path / "old.npz")
    np.savez(tmp_path / "evil.npz", facts=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BadMapFile):
        read_map(tmp_path / "evil.npz")


def test_report_writes_what_json_cannot_say_as_null(tmp_path):
    write_report(tmp_path / "r.json", {"b": np.float32(1.5), "a": float("inf"), "c": np.arange(2)})
    assert (tmp_path / "r.json").read_text().split() == (
        '{ "a": null, "b": 1.5, "c": [ 0, 1 ] }'.split()
    )


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("format ascii 1.0\nelement vertex", "damaged"),
        ("format\nelement vertex 1\nproperty float x", "damaged"),
        ("format ascii 1.0\nelement vertex x\nproperty float x", "damaged"),
        ("format ascii 1.0\nelement vertex -4\nproperty float x", "no vertices"),
        (f"format ascii 1.0\nelement vertex 1{30 * '0'}\n{XYZ}", "cut off"),
        (f"format binary_little_endian 1.0\nelement vertex 1{30 * '0'}\n{XYZ}", "cut off"),
        (f"format ascii 1.0\nelement vertex 1\n{XYZ}\nproperty float x", "damaged|cut off"),
        (f"format ascii 1.0\nelement vertex 1\n{XYZ}", "not finite"),
    ],
)
def test_a_spoilt_cloud_is_one_sentence(tmp_path, header, words):
    path = tmp_path / "truth.ply"
    path.write_bytes(f"ply\n{header}\nend_header\n1 nan 2\n".encode())
    with pytest.raises(BadInput, match=words):
        read_points(path)


@pytest.mark.timeout(20)
def test_a_pipe_is_no_cloud(tmp_path):
    os.mkfifo(tmp_path / "truth.ply")
    with pytest.raises(BadInput, match="no regular file"):
        read_points(tmp_path / "truth.ply")
