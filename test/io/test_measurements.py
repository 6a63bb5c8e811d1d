"""Odometry, gravity and depth of a recording reach the map; what is missing is said."""

import json

import numpy as np
import pytest
from measured_bag import IMAGES, T_BASE_CAMERA, write_measured_bag
from oracle import OracleReconstructor, drive
from recordings import scene, write_folder, write_video

from scal3r_ros.config import Config
from scal3r_ros.io.inputs import open_measurements, open_source
from scal3r_ros.io.measurements import wanted_measurements
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.static_transforms import StaticTransforms, mount_matrix
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline.offline import run

FRAMES = 40
OPTIONS = {"chunk.size": 20, "chunk.overlap": 10, "loop.enabled": False}


@pytest.fixture(scope="module")
def street():
    return drive(frames=FRAMES, length=30.0, width=64, height=48, route="EN", wobble=0.02)


@pytest.fixture(scope="module")
def bag(street, tmp_path_factory):
    return write_measured_bag(tmp_path_factory.mktemp("bags") / "all", street, FRAMES)


def map_bag(path, street, out, topics=None, mount=None, **options):
    config = from_dict(Config, OPTIONS | {k.replace("__", "."): v for k, v in options.items()})
    wanted = wanted_measurements(config.scale.sources, config.map.alignment, topics or {})
    source = open_source(path, topic=IMAGES)
    measurements = open_measurements(source, path, wanted, topics, mount)
    run(config, source, OracleReconstructor(street), out, measurements=measurements)
    report = json.loads((out / "report.json").read_text())
    return report, read_trajectory(out / "trajectory.txt")[1]


def length(trajectory) -> float:
    positions = trajectory[:, :3, 3]
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())


@pytest.mark.parametrize("source", ["odometry", "depth"])
def test_a_bag_makes_the_map_metric(bag, street, tmp_path, source):
    report, trajectory = map_bag(bag, street, tmp_path, scale__source=source)
    assert report["scale"]["source"] == source
    assert length(trajectory) == pytest.approx(street.path_length(), rel=0.02)


def test_float_depth_and_late_odometry_in_the_other_storage(street, tmp_path):
    path = write_measured_bag(
        tmp_path / "bag", street, FRAMES, "db3", depth_encoding="32FC1", late_ns=300_000_000
    )
    for source in ("odometry", "depth"):
        _, trajectory = map_bag(path, street, tmp_path / source, scale__source=source)
        assert length(trajectory) == pytest.approx(street.path_length(), rel=0.02)


def test_the_accelerometer_levels_the_map_through_its_mount(bag, street, tmp_path):
    _, trajectory = map_bag(bag, street, tmp_path, map__alignment="imu")
    true = street.T_world_camera[:FRAMES, 2, :3]  # the vertical in each camera
    found = trajectory[:, 2, :3]
    np.testing.assert_allclose(found, true, atol=1e-3)


def test_satellite_fixes_of_a_bag_make_the_map_metric_and_earthly(street, tmp_path):
    path = write_measured_bag(tmp_path / "bag", street, FRAMES, fixes=True)
    report, trajectory = map_bag(
        path, street, tmp_path / "out", scale__source="gnss", scale__also="odometry"
    )
    assert report["scale"]["source"] == "odometry+gnss"
    assert length(trajectory) == pytest.approx(street.path_length(), rel=0.02)


def test_a_bag_without_mounts_needs_them_said(street, tmp_path):
    path = write_measured_bag(tmp_path / "bag", street, FRAMES, static=False)
    with pytest.raises(BadInput, match="--camera-mount"):
        map_bag(path, street, tmp_path / "a", scale__source="odometry")
    with pytest.raises(BadInput, match="does not connect 'imu_link' with 'camera_optical'"):
        map_bag(path, street, tmp_path / "b", map__alignment="imu")
    mount = T_BASE_CAMERA
    _, trajectory = map_bag(path, street, tmp_path / "c", None, mount, scale__source="odometry")
    assert length(trajectory) == pytest.approx(street.path_length(), rel=0.02)


def test_several_topics_want_a_choice(street, tmp_path):
    path = write_measured_bag(tmp_path / "bag", street, 12, second_odometry=True)
    wanted = {"odometry": "scale.source odometry"}
    source = open_source(path, topic=IMAGES)
    with pytest.raises(BadInput, match="choose one with --odometry-topic: /odom, /other_odom"):
        open_measurements(source, path, wanted)
    chosen = open_measurements(source, path, wanted, {"odometry": "/other_odom"})
    assert chosen.description == "odometry /other_odom"
    np.testing.assert_allclose(chosen.T_base_camera, T_BASE_CAMERA, atol=1e-12)
    with pytest.raises(BadInput, match="no odometry on /nowhere; odometry topics: /odom, /other"):
        open_measurements(source, path, wanted, {"odometry": "/nowhere"})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("odometry", (("odometry",), "first_camera")),
        ("depth", (("depth",), "first_camera")),
        ("imu", ((), "imu")),
        ("gnss", (("camera_height", "gnss"), "first_camera")),
    ],
)
def test_what_the_input_does_not_offer_is_one_clear_error(street, tmp_path, kind, options):
    wanted = wanted_measurements(*options)
    left_out = {"odometry": "odom", "depth": "image", "imu": "imu", "gnss": "fix"}[kind]
    path = write_measured_bag(tmp_path / "bag", street, 5, leave_out=(left_out,))
    with pytest.raises(BadInput, match=f"holds no {kind} topic; topics: .*; take"):
        open_measurements(open_source(path, topic=IMAGES), path, wanted)
    for other in (
        write_folder(tmp_path / "folder", scene(3)),
        write_video(tmp_path / "video.mp4", scene(3)),
    ):
        with pytest.raises(BadInput, match=f"offers no {kind}, .*; take"):
            open_measurements(open_source(other), other, wanted)


def test_nothing_is_opened_that_nobody_wants(tmp_path):
    source = open_source(write_folder(tmp_path, scene(3)))
    assert open_measurements(source, tmp_path, wanted_measurements((), "floor")) is None


def test_a_source_that_stays_silent_is_reported(street, tmp_path):
    path = write_measured_bag(tmp_path / "bag", street, FRAMES)
    report, _ = map_bag(path, street, tmp_path / "out", scale__source="known_distance",
                        scale__known_frame=10_000, scale__known_distance=5.0)  # fmt: skip
    silent = [event for event in report["events"] if event[0] == "scale_unknown"]
    assert len(silent) == 1 and "known_frame was not mapped" in silent[0][2]


def test_metres_against_common_sense_are_told(bag, street, tmp_path):
    """The height of the camera was given in millimetres."""
    for height, told in ((1.5, 0), (1500.0, 1)):
        options = {"scale__source": "camera_height", "scale__camera_height": height}
        report, _ = map_bag(bag, street, tmp_path / str(height), **options)
        assert report["scale"]["unit"] == "metres"
        suspicious = [event for event in report["events"] if event[0] == "scale_suspicious"]
        assert len(suspicious) == told and all("check the unit" in e[2] for e in suspicious)


def test_depth_beside_the_images_of_a_folder(street, tmp_path):
    import cv2

    images = [street.frame(i) for i in range(FRAMES)]
    write_folder(tmp_path / "run", images)
    (tmp_path / "run" / "depth").mkdir()
    lines = []
    for image in images:
        depth, _ = street.render(np.array([image.id]))
        counts = np.clip(np.nan_to_num(5000 * depth[0]), 0, 65535)
        counts[counts == 65535] = 0
        cv2.imwrite(str(tmp_path / "run" / "depth" / f"{image.id}.png"), counts.astype(np.uint16))
        stamp = image.stamp_ns + 3_000_000
        lines.append(f"{stamp // 10**9}.{stamp % 10**9:09d} depth/{image.id}.png")
    (tmp_path / "run" / "depth.txt").write_text("\n".join(lines))
    config = from_dict(Config, OPTIONS | {"scale.source": "depth"})
    wanted = wanted_measurements(("depth",), "none")
    source = open_source(tmp_path / "run")
    with pytest.raises(BadInput, match="--depth-unit mm"):
        open_measurements(source, tmp_path / "run", wanted)
    measurements = open_measurements(source, tmp_path / "run", wanted, depth_unit="tum")
    run(config, source, OracleReconstructor(street), tmp_path / "out", measurements=measurements)
    _, trajectory = read_trajectory(tmp_path / "out" / "trajectory.txt")
    assert length(trajectory) == pytest.approx(street.path_length(), rel=0.02)


def test_mounts_are_found_up_and_down_the_tree():
    random = np.random.default_rng(0)

    def pose():
        return mount_matrix([*random.standard_normal(3), *random.standard_normal(4)])

    forest, T_base_mast, T_mast_camera, T_base_imu = StaticTransforms(), pose(), pose(), pose()
    forest.add("base", "mast", T_base_mast)
    forest.add("/mast", "camera", T_mast_camera)
    forest.add("base", "imu", T_base_imu)
    expected = np.linalg.inv(T_base_imu) @ T_base_mast @ T_mast_camera
    np.testing.assert_allclose(forest.lookup("imu", "/camera"), expected, atol=1e-9)
    np.testing.assert_allclose(forest.lookup("camera", "imu"), np.linalg.inv(expected), atol=1e-9)
    np.testing.assert_allclose(forest.lookup("imu", "imu"), np.eye(4), atol=1e-12)
    assert forest.lookup("imu", "odom") is None
    forest.add("camera", "base", np.eye(4))
    with pytest.raises(BadInput, match="cycle"):
        forest.lookup("imu", "camera")
