"""Poses of a textured scene are precise: a closer look at the images makes them so."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from scal3r_ros.config import SfmConfig
from scal3r_ros.io.bag import open_bag
from scal3r_ros.io.inputs import open_source
from scal3r_ros.reconstruct.factory import open_features
from scal3r_ros.reconstruct.sfm.model import Model, Tracks
from scal3r_ros.reconstruct.sfm.subpixel import refine_tracks
from scal3r_ros.records import Chunk
from scal3r_ros.rigid import rotation_matrix

BAG = Path(__file__).resolve().parents[3] / "demo" / "loop_room"
K = np.array([[140.0, 0, 80.0], [0, 140.0, 60.0], [0, 0, 1]])


def true_rotations(step, count):
    with open_bag(BAG) as reader:
        chosen = [c for c in reader.connections if c.topic == "/ground_truth/pose"]
        found = []
        for connection, _, data in islice(reader.messages(chosen), 0, step * count, step):
            q = reader.deserialize(data, connection.msgtype).pose.orientation
            found.append(rotation_matrix(np.array([q.x, q.y, q.z, q.w])))
    return np.stack(found)


def test_rotations_of_the_demo_room_are_right_within_a_tenth_of_a_degree():
    pytest.importorskip("pycolmap", reason="pycolmap is absent")
    from scal3r_ros.reconstruct.sfm.reconstructor import SfmReconstructor

    images = islice(open_source(BAG), 0, 36, 3)
    frames = tuple(replace(image.decode(), id=i) for i, image in enumerate(images))
    sfm = SfmReconstructor(SfmConfig(dense=False), open_features("sift"))
    found = sfm.reconstruct(Chunk(0, 0, frames)).T_chunk_camera[:, :3, :3]
    truth = true_rotations(3, 12)
    apart = (found[6].T @ found).transpose(0, 2, 1) @ (truth[6].T @ truth)
    turns = [np.degrees(np.linalg.norm(cv2.Rodrigues(R)[0])) for R in apart]
    assert np.median(turns) < 0.1


def test_observations_come_to_where_the_images_agree():
    """Features that are off by a pixel, in images that are shifted by a known fraction of one."""
    random = np.random.default_rng(0)
    picture = cv2.GaussianBlur(random.integers(0, 256, (120, 160)).astype(np.float32), (0, 0), 1.5)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    shifts = np.array([0.0, 3.3, 6.6])
    images = [
        cv2.warpAffine(picture, np.array([[1, 0, -s], [0, 1, 0.0]]), (160, 120)).astype(np.uint8)
        for s in shifts
    ]
    places = np.stack(np.meshgrid(np.arange(30, 140, 12), np.arange(20, 110, 12)), -1).reshape(
        -1, 2
    )
    frame, point = np.divmod(np.arange(3 * len(places)), len(places))
    exact = places[point] + 0.5 - np.stack([shifts[frame], 0 * frame], axis=1)
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = shifts * 2.0 / K[0, 0]
    world = 2.0 * np.c_[(places + 0.5 - K[:2, 2]) / K[0, 0], np.ones(len(places))]
    tracks = Tracks(world, point, frame, point)
    model = Model((0, 1, 2), poses, tracks, np.ones(len(places)), np.ones(len(places)), None)
    rough = exact + np.where(frame == 1, 0.0, 1.0)[:, None] * random.uniform(-1, 1, exact.shape)
    found = refine_tracks(images, rough, model, K)
    off = np.linalg.norm(found.pixels - exact, axis=1)
    assert found.precise.mean() > 0.9 and np.median(off[frame != 1]) < 0.05
    gone = refine_tracks([None, *images[1:]], rough, model, K)
    np.testing.assert_array_equal(gone.pixels[frame == 0], rough[frame == 0])
