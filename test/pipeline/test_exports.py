"""A map in every format, read back by libraries that are not ours."""

import json
import sys

import numpy as np
import pytest
from evo.tools import file_interface
from mapper_runs import config, run
from oracle import OracleReconstructor
from plyfile import PlyData

from scal3r_ros import cli
from scal3r_ros.io.exports import formats
from scal3r_ros.io.exports.map_view import ExportNotPossible
from scal3r_ros.mapping.camera import project
from scal3r_ros.pipeline.map_view import map_view, saved_map
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.rigid import inverse


@pytest.fixture(scope="module")
def saved(street, tmp_path_factory):
    """Folder of a saved map of a street, with the images of its frames."""
    folder = tmp_path_factory.mktemp("saved")
    mapper = Mapper(config(loop__enabled=True), OracleReconstructor(street))
    run(street, mapper)
    mapper.save(folder)
    return folder


@pytest.fixture(scope="module")
def view(saved):
    with saved_map(saved) as state:
        yield map_view(state)


def written(view, folder, *names):
    return [path.relative_to(folder).as_posix() for path in formats.write(view, folder, names)]


def test_trajectories_are_read_by_evo(view, tmp_path):
    assert written(view, tmp_path, "tum", "kitti", "euroc") == [
        "trajectory_tum.txt", "trajectory_kitti.txt", "times.txt", "trajectory_euroc.csv",
    ]  # fmt: skip
    tum = file_interface.read_tum_trajectory_file(tmp_path / "trajectory_tum.txt")
    euroc = file_interface.read_euroc_csv_trajectory(tmp_path / "trajectory_euroc.csv")
    kitti = file_interface.read_kitti_poses_file(tmp_path / "trajectory_kitti.txt")
    stamps = np.array([pose.stamp_ns for pose in view.poses])
    for read in (tum, euroc):
        np.testing.assert_allclose(read.timestamps, stamps * 1e-9)
        np.testing.assert_allclose(read.poses_se3, view.matrices, atol=1e-6)
    first = view.matrices[0]
    np.testing.assert_allclose(kitti.poses_se3, inverse(first) @ view.matrices, atol=1e-6)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "times.txt"), stamps * 1e-9)


def test_clouds_are_read_by_plyfile_pypcd4_and_laspy(view, tmp_path):
    pypcd4, laspy = pytest.importorskip("pypcd4"), pytest.importorskip("laspy")
    pytest.importorskip("lazrs")
    written(view, tmp_path, "ply", "pcd", "las", "laz")
    cloud = view.cloud
    vertex = PlyData.read(str(tmp_path / "map.ply"))["vertex"]
    np.testing.assert_array_equal(np.stack([vertex[a] for a in "xyz"], 1), cloud.points)
    pcd = pypcd4.PointCloud.from_path(tmp_path / "map.pcd")
    np.testing.assert_array_equal(pcd.numpy(("x", "y", "z")), cloud.points)
    packed = pcd.numpy(("rgb",)).astype(np.float32).ravel()
    np.testing.assert_array_equal(pypcd4.PointCloud.decode_rgb(packed), cloud.colors)
    np.testing.assert_array_equal(pcd.numpy(("intensity",)).ravel(), cloud.confidence)
    for name in ("map.las", "map.laz"):
        las = laspy.read(tmp_path / name)
        np.testing.assert_allclose(np.asarray(las.xyz), cloud.points, atol=1e-5)
        colors = np.stack([las.red, las.green, las.blue], axis=1) // 257
        np.testing.assert_array_equal(colors, cloud.colors)
        np.testing.assert_allclose(las.header.maxs, cloud.points.max(axis=0), atol=1e-5)
    assert (tmp_path / "map.laz").stat().st_size < (tmp_path / "map.las").stat().st_size


@pytest.mark.parametrize("name", ["colmap", "colmap-binary"])
def test_a_colmap_model_is_read_by_pycolmap(view, street, tmp_path, name):
    pycolmap = pytest.importorskip("pycolmap")
    written(view, tmp_path, name)
    model = pycolmap.Reconstruction(tmp_path / "colmap" / "sparse" / "0")
    assert model.num_images() == len(view.poses) and model.num_points3D() == len(view.cloud)
    for pose in view.poses[::17]:
        image = model.find_image_with_name(f"frame_{pose.frame_id:06d}.jpg")
        world_to_camera = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        np.testing.assert_allclose(inverse(world_to_camera), pose.T_map_camera, atol=1e-9)
        np.testing.assert_allclose(image.camera.calibration_matrix(), street.intrinsics)
        assert (tmp_path / "colmap" / "images" / image.name).is_file()
    points = np.array([model.points3D[i + 1].xyz for i in range(0, len(view.cloud), 97)])
    np.testing.assert_allclose(points, view.cloud.points[::97], atol=1e-6)


def test_nerfstudio_cameras_look_at_the_points_that_they_saw(view, tmp_path):
    """By its own convention: OpenGL axes, so the scene lies along minus z."""
    from PIL import Image

    written(view, tmp_path, "nerfstudio")
    facts = json.loads((tmp_path / "nerfstudio" / "transforms.json").read_text())
    assert len(facts["frames"]) == len(view.poses)
    item, kept = facts["frames"][20], list(view.views())[20]
    with Image.open(tmp_path / "nerfstudio" / item["file_path"]) as image:
        assert image.size == (item["w"], item["h"])
    local = inverse(np.array(item["transform_matrix"])) @ np.vstack(
        [view.cloud.points.T, np.ones(len(view.cloud))]
    )
    ahead = local[2] < -0.1
    x, y, z = local[:3, ahead]
    u, v = item["cx"] - item["fl_x"] * x / z, item["cy"] + item["fl_y"] * y / z
    pixels, depth = project(view.cloud.points[ahead], kept.intrinsics, kept.T_map_camera)
    np.testing.assert_allclose(np.stack([u, v], 1), pixels, atol=1e-3)
    assert ((u > 0) & (u < item["w"]) & (v > 0) & (v < item["h"])).sum() > 500


@pytest.mark.parametrize("name, file", [("octomap", "map.bt"), ("octomap-full", "map.ot")])
def test_octomap_holds_points_and_the_free_space_before_them(view, tmp_path, name, file):
    pyoctomap = pytest.importorskip("pyoctomap")
    written(view, tmp_path, name)
    path = str(tmp_path / file)
    if file.endswith("bt"):
        tree = pyoctomap.OcTree(view.resolution)
        assert tree.readBinary(path)
    else:
        tree = pyoctomap.OcTree(view.resolution).read(path)
    assert tree.getResolution() == pytest.approx(view.resolution)

    def occupied(point):
        node = tree.search([float(x) for x in point])
        return None if node is None else tree.isNodeOccupied(node)

    assert all(occupied(point) for point in view.cloud.points[::50])
    kept = list(view.views())[30]
    ahead = kept.T_map_camera[:3, 3] + 3 * view.resolution * kept.T_map_camera[:3, 2]
    assert occupied(ahead) is False
    assert occupied(view.cloud.points.max(axis=0) + 100 * view.resolution) is None


def test_an_mcap_recording_is_read_by_the_mcap_library(view, tmp_path):
    mcap_ros2 = pytest.importorskip("mcap_ros2.reader")
    names = written(view, tmp_path, "mcap")
    assert names == ["recording/metadata.yaml", "recording/recording.mcap"]
    heard = {}
    for message in mcap_ros2.read_ros2_messages(tmp_path / "recording" / "recording.mcap"):
        heard.setdefault(message.channel.topic, []).append(message.ros_msg)
    poses = heard["/scal3r/pose"]
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in poses]
    assert stamps == [pose.stamp_ns for pose in view.poses]
    (cloud,) = heard["/scal3r/map"]
    rows = np.frombuffer(cloud.data, "<f4").reshape(-1, 5)
    np.testing.assert_array_equal(rows[:, :3], view.cloud.points)
    assert len(heard["/scal3r/image/compressed"]) == len(heard["/tf"]) == len(view.poses)


def test_a_mesh_is_read_by_trimesh(view, tmp_path):
    pytest.importorskip(
        "open3d", reason="open3d is absent; it is large and optional", exc_type=ImportError
    )
    trimesh = pytest.importorskip("trimesh")
    written(view, tmp_path, "obj", "glb")
    for name in ("mesh.obj", "mesh.glb"):
        mesh = trimesh.load(tmp_path / name, force="mesh")
        assert len(mesh.faces) > 500
        away = trimesh.proximity.ProximityQuery(mesh).vertex(view.cloud.points[::40])[0]
        assert np.median(away) < 2 * view.resolution


def test_a_rerun_recording_is_read_by_rerun(view, tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is absent; it is large and optional")
    written(view, tmp_path, "rerun")
    data = (tmp_path / "map.rrd").read_bytes()
    assert data[:4] == b"RRF2" and len(data) > view.cloud.points.nbytes


def test_the_command_writes_what_is_asked_for(saved, tmp_path, capsys):
    words = ["export", str(saved), "--out", str(tmp_path), "--format", "pcd", "tum"]
    assert cli.main(words) == cli.OK
    assert {path.name for path in tmp_path.iterdir()} == {"map.pcd", "trajectory_tum.txt"}
    assert "2 files" in capsys.readouterr().out
    (tmp_path / "no_map").mkdir()
    assert cli.main(["export", str(tmp_path / "no_map"), *words[2:]]) == cli.BAD_INPUT
    assert "no saved map" in capsys.readouterr().err


def test_what_is_missing_is_said(view, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "laspy", None)
    with pytest.raises(ExportNotPossible, match="needs the Python package laspy.*pip install"):
        formats.write(view, tmp_path, ["laz"])
    with pytest.raises(ValueError, match="no format 'stl'; choose from tum"):
        formats.write(view, tmp_path, ["tum", "stl"])
    assert not list(tmp_path.iterdir())


def test_images_that_were_not_kept_are_said(street, tmp_path):
    mapper = Mapper(config(), OracleReconstructor(street))
    run(street, mapper, range(16))
    for name in ("colmap", "nerfstudio"):
        with pytest.raises(ExportNotPossible, match="keeps no images.*loop.enabled"):
            formats.write(mapper.view(), tmp_path, [name])
    assert not list(tmp_path.iterdir())


def test_the_page_lists_every_format():
    from pathlib import Path

    page = (Path(cli.__file__).parents[1] / "docs" / "exports.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(formats.FORMATS)
    for row, item in zip(rows, formats.FORMATS.values()):
        assert item.files in row and item.holds in row and item.package in row
