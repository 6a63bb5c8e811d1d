"""Cameras: decoding, unprojection and projection undo each other; pixel centres lie at +0.5."""

import numpy as np

from scal3r_ros.mapping.camera import decode_cameras, project, unproject
from scal3r_ros.mapping.sim3 import rotation_exp


def random_cameras(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = rotation_exp(random.normal(size=(count, 3)))
    poses[:, :3, 3] = random.normal(size=(count, 3))
    intrinsics = np.array([[[90.0, 0.7, 31.0], [0, 80.0, 19.0], [0, 0, 1]]] * count)
    return poses, intrinsics


def test_projecting_unprojected_pixels_gives_their_centres():
    poses, intrinsics = random_cameras(3)
    depth = np.random.default_rng(5).uniform(1, 9, (3, 24, 40)).astype(np.float32)
    points = unproject(depth, intrinsics, poses)
    columns, rows = np.meshgrid(np.arange(40) + 0.5, np.arange(24) + 0.5)
    for frame in range(3):
        pixels, z = project(points[frame].reshape(-1, 3), intrinsics[frame], poses[frame])
        expected = np.stack([columns.ravel(), rows.ravel()], axis=1)
        np.testing.assert_allclose(pixels, expected, atol=2e-3)
        np.testing.assert_allclose(z, depth[frame].ravel(), rtol=1e-5)


def test_a_subgrid_is_the_subgrid_of_the_whole():
    poses, intrinsics = random_cameras(2)
    depth = np.random.default_rng(6).uniform(1, 9, (2, 23, 41)).astype(np.float32)
    whole = unproject(depth, intrinsics, poses)
    np.testing.assert_array_equal(
        unproject(depth, intrinsics, poses, step=4, start=2), whole[:, 2::4, 2::4]
    )


def test_unknown_depth_gives_unknown_points():
    poses, intrinsics = random_cameras(1)
    depth = np.full((1, 4, 4), np.nan, np.float32)
    assert np.isnan(unproject(depth, intrinsics, poses)).all()


def test_decoded_camera_projects_as_the_network_means_it():
    encoding = np.array([[0.3, -0.2, 1.0, 0.2, -0.4, 0.6, 1.7, 0.7, 1.1]])
    poses, intrinsics = decode_cameras(encoding, 154, 518)
    x, y, z, w = encoding[0, 3:7] / np.linalg.norm(encoding[0, 3:7])
    point = np.array([0.4, 0.1, 3.0])
    vector = np.array([x, y, z])
    turned = point + 2 * np.cross(vector, np.cross(vector, point) + w * point)
    local = turned + encoding[0, :3]
    half_width, half_height = np.tan(encoding[0, 8] / 2), np.tan(encoding[0, 7] / 2)
    expected = [
        518 / 2 * (1 + local[0] / local[2] / half_width),
        154 / 2 * (1 + local[1] / local[2] / half_height),
    ]
    pixel, depth = project(point[None], intrinsics[0], poses[0])
    np.testing.assert_allclose(pixel[0], expected, rtol=1e-12)
    np.testing.assert_allclose(depth[0], local[2], rtol=1e-12)
