"""Dense depth of made scenes: right where it is given, none where nothing can be known."""

import cv2
import numpy as np
import pytest

from scal3r_ros.reconstruct.sfm.depth_gates import confirmed, on_surfaces
from scal3r_ros.reconstruct.sfm.photometric import DepthEstimate, refined
from scal3r_ros.reconstruct.sfm.planar import smoothed
from scal3r_ros.reconstruct.sfm.sweep import View, first_depth

SIZE = (120, 160)
K = np.array([[140.0, 0, 79.5], [0, 140.0, 59.5], [0, 0, 1]])
PLANES = np.linspace(0.0, 0.8, 42)


def pose(x=0.0, z=0.0, yaw=0.0, roll=0.0):
    """T_frame_camera of a camera beside the frame's."""
    T = np.eye(4)
    T[:3, :3] = (
        cv2.Rodrigues(np.array([0.0, yaw, 0.0]))[0] @ cv2.Rodrigues(np.array([0, 0, roll]))[0]
    )
    T[:3, 3] = x, 0.0, z
    return T


class Wall:
    """A textured plane n . p = 1 in the frame's coordinates, with a picture drawn on it."""

    def __init__(self, normal, seed=0, blank=False):
        self.normal = np.asarray(normal, float)
        random = np.random.default_rng(seed)
        small = random.integers(0, 256, (150, 200)).astype(np.uint8)
        picture = cv2.resize(small, (400, 300), interpolation=cv2.INTER_CUBIC)
        self.picture = np.full_like(picture, 120) if blank else picture
        self.K = np.array([[140.0, 0, 199.5], [0, 140.0, 149.5], [0, 0, 1]])

    def seen_from(self, T_frame_camera):
        """The image of a camera, by the homography of the plane."""
        T = np.linalg.inv(T_frame_camera)
        H = K @ (T[:3, :3] + np.outer(T[:3, 3], self.normal)) @ np.linalg.inv(self.K)
        return cv2.warpPerspective(self.picture, H, SIZE[::-1], flags=cv2.INTER_LINEAR)

    def inverse_depth(self):
        """(H, W) in the frame."""
        x, y = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
        rays = np.linalg.inv(K) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1).astype(float)
        return (self.normal @ rays).reshape(SIZE)


def views_of(wall, cameras):
    return [View(wall.seen_from(T), np.linalg.inv(T), i < len(cameras) / 2)
            for i, T in enumerate(cameras)]  # fmt: skip


SIDEWAYS = [pose(-0.3), pose(-0.15), pose(0.15), pose(0.3)]
TURNING = [pose(-0.3, yaw=0.1), pose(-0.15, roll=0.3), pose(0.2, yaw=-0.08), pose(0.3, roll=-0.4)]
FORWARD = [pose(0.05, z=-0.4), pose(0.0, z=-0.2), pose(0.0, z=0.2), pose(-0.05, z=0.4)]


@pytest.mark.parametrize("cameras", [SIDEWAYS, TURNING, FORWARD], ids=["aside", "turn", "forward"])
@pytest.mark.parametrize("normal", [(0, 0, 0.4), (0.1, 0.25, 0.3)], ids=["wall", "floor"])
def test_a_textured_plane_is_found(cameras, normal):
    wall = Wall(normal)
    gray, views = wall.seen_from(np.eye(4)), views_of(wall, cameras)
    first = first_depth(gray, views, K, PLANES)
    truth = wall.inverse_depth()
    off = np.abs(first.inverse_depth / truth - 1)
    assert np.median(off) < 0.05 and (first.evidence > 0.02).mean() > 0.9
    fine = refined(gray, views, K, first.inverse_depth, 3)
    known = fine.inverse_depth > 0
    off = np.abs(fine.inverse_depth[known] / truth[known] - 1)
    assert known.mean() > 0.9 and np.median(off) < 0.015
    told = np.median(fine.relative_error[known])
    assert np.median(off) < 2 * told, "errors are not larger than what is claimed"


def test_what_has_no_texture_has_no_evidence_and_no_precise_depth():
    wall = Wall((0, 0, 0.4), blank=True)
    noise = np.random.default_rng(1)
    images = [wall.seen_from(T).astype(float) + noise.normal(0, 1, SIZE) for T in SIDEWAYS]
    views = [View(np.rint(i).astype(np.uint8), np.linalg.inv(T), n < 2)
             for n, (i, T) in enumerate(zip(images, SIDEWAYS))]  # fmt: skip
    gray = np.rint(wall.seen_from(np.eye(4)) + noise.normal(0, 1, SIZE)).astype(np.uint8)
    first = first_depth(gray, views, K, PLANES)
    assert (first.evidence > 0.02).mean() < 0.1
    fine = refined(gray, views, K, first.inverse_depth, 3)
    assert (on_surfaces(fine) > 0).mean() < 0.05


def test_distant_things_are_not_given_a_depth():
    far = Wall((0, 0, 1e-4))
    gray, views = far.seen_from(np.eye(4)), views_of(far, SIDEWAYS)
    fine = refined(gray, views, K, first_depth(gray, views, K, PLANES).inverse_depth, 3)
    assert (on_surfaces(fine) > 0).mean() < 0.01


def test_noise_on_a_slanted_plane_averages_out_and_steps_are_left_out():
    truth = Wall((0.1, 0.25, 0.3)).inverse_depth()
    truth[:, 80:] *= 1.15
    noise = np.random.default_rng(2).normal(1, 0.01, SIZE)
    found = smoothed(DepthEstimate((truth * noise).astype(np.float32), np.full(SIZE, 0.01)))
    known = found.inverse_depth > 0
    off = np.abs(found.inverse_depth / truth - 1)[known]
    assert np.median(off) < 0.0015 and known[:, :70].mean() > 0.9
    assert not known[:, 78:82].any() and known[:, 90:].mean() > 0.9


def test_edges_and_islands_are_left_out():
    inverse = np.full(SIZE, 0.5, np.float32)
    inverse[:, 80:] = 0.25
    inverse[10:13, 10:13] = 0.1
    kept = on_surfaces(DepthEstimate(inverse, np.full(SIZE, 0.01, np.float32))) > 0
    assert not kept[:, 79:81].any() and not kept[9:14, 9:14].any()
    assert kept[30:, :78].all() and kept[30:, 82:].all()


def test_a_depth_that_others_contradict_is_not_confirmed():
    truth = np.full(SIZE, 0.4, np.float32)
    wrong = truth.copy()
    wrong[40:80, 60:100] = 0.5
    poses = np.stack([np.eye(4), pose(0.1), pose(-0.1), pose(0.2)])
    kept = confirmed([wrong, truth, truth, truth], poses, K, 0, [1, 2, 3]) > 0
    assert not kept[40:80, 60:100].any()
    assert kept[:, 30:50].all()
