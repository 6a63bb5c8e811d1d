"""A chunk goes on from the frames solved before: same frame and scale, with and without restart."""

import io
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scal3r_ros.config import SfmConfig
from scal3r_ros.io.inputs import open_source
from scal3r_ros.mapping.sim3 import rotation_log
from scal3r_ros.reconstruct.factory import open_features
from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.records import Chunk

pytest.importorskip("pycolmap", reason="pycolmap is absent")

BAG = Path(__file__).resolve().parents[3] / "demo" / "loop_room"
CONFIG = SfmConfig(dense=False, max_features=800)


@pytest.fixture(scope="module")
def frames():
    """Frames of the demo recording, 0.2 s apart."""
    images = islice(open_source(BAG), 0, 66, 3)
    return [replace(image.decode(), id=number) for number, image in enumerate(images)]


def reconstructor():
    from scal3r_ros.reconstruct.sfm.reconstructor import SfmReconstructor

    return SfmReconstructor(CONFIG, open_features("sift"))


def chunks_of(frames):
    first = Chunk(0, 0, tuple(frames[:14]))
    return first, Chunk(1, 0, tuple(frames[10:22]), tuple(f.id for f in frames[10:14]))


def test_a_chunk_agrees_with_the_one_before_as_it_goes_on_from_it(frames):
    sfm = reconstructor()
    before, after = (sfm.reconstruct(chunk) for chunk in chunks_of(frames))
    assert before.frame_ids == tuple(range(14)) and after.frame_ids == tuple(range(10, 22))
    moved = [np.linalg.inv(T[i]) @ T[j] for T, i, j in (
        (before.T_chunk_camera, 10, 13), (after.T_chunk_camera, 0, 3))]  # fmt: skip
    turn = np.degrees(np.linalg.norm(rotation_log(moved[0][:3, :3].T @ moved[1][:3, :3])))
    aside = [T[:3, 3] / np.linalg.norm(T[:3, 3]) for T in moved]
    assert turn < 0.5 and np.degrees(np.arccos(aside[0] @ aside[1])) < 2.0
    depths = before.depth[10:], after.depth[:4]
    both = np.isfinite(depths[0]) & np.isfinite(depths[1])
    scale = np.linalg.norm(moved[0][:3, 3]) / np.linalg.norm(moved[1][:3, 3])
    assert np.median(depths[0][both] / depths[1][both]) == pytest.approx(scale, rel=0.05)


def test_a_restart_between_two_chunks_changes_nothing(frames):
    first, second = chunks_of(frames)
    sfm = reconstructor()
    sfm.reconstruct(first)
    state = sfm.state()
    expected = sfm.reconstruct(second)
    restarted = reconstructor()
    restarted.restore(state)
    found = restarted.reconstruct(second)
    np.testing.assert_array_equal(found.T_chunk_camera, expected.T_chunk_camera)
    np.testing.assert_array_equal(found.depth, expected.depth)


def recorded(frame):
    """As a loop gets it back, nearly the same image."""
    packed = io.BytesIO()
    Image.fromarray(frame.rgb).save(packed, "JPEG", quality=92)
    return replace(frame, rgb=np.asarray(Image.open(packed)))


def test_a_loop_finds_the_same_after_a_restart_and_leaves_no_trace(frames):
    first, second = chunks_of(frames)
    sfm = reconstructor()
    sfm.reconstruct(first)
    state = sfm.state()
    restarted = reconstructor()
    restarted.restore(state)
    visits = (*frames[:4], *frames[9:14])
    loop = Chunk(7, 0, tuple(recorded(frame) for frame in visits), kind="loop")
    found, expected = (each.reconstruct(loop, contribute=False) for each in (restarted, sfm))
    np.testing.assert_array_equal(found.T_chunk_camera, expected.T_chunk_camera)
    np.testing.assert_array_equal(found.depth, expected.depth)
    found, expected = (each.reconstruct(second) for each in (restarted, sfm))
    np.testing.assert_array_equal(found.T_chunk_camera, expected.T_chunk_camera)
    np.testing.assert_array_equal(found.depth, expected.depth)


def test_a_camera_that_stands_still_keeps_its_pose(frames):
    sfm = reconstructor()
    first = chunks_of(frames)[0]
    sfm.reconstruct(first)
    still = [replace(frames[13], id=i) for i in range(14, 22)]
    shared = tuple(f.id for f in frames[10:14])
    found = sfm.reconstruct(Chunk(1, 0, (*frames[10:14], *still), shared))
    assert found.frame_ids == tuple(range(10, 22))
    positions = found.T_chunk_camera[3:, :3, 3]
    assert np.ptp(positions, axis=0).max() < 0.005  # in units of the median depth


def test_standing_still_from_the_start_is_told(frames):
    still = tuple(replace(frames[0], id=i) for i in range(8))
    with pytest.raises(ReconstructionFailed):
        reconstructor().reconstruct(Chunk(0, 0, still))


def test_memory_of_other_features_is_refused(frames):
    sfm = reconstructor()
    state = replace(sfm.state(), fingerprint="xfeat-vlad")
    with pytest.raises(ValueError, match="set sfm.features as it was"):
        sfm.restore(state)
