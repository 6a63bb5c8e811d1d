"""What structure from motion accepts is what its options say."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from scal3r_ros.config import Config, ModelConfig, SfmConfig
from scal3r_ros.io.inputs import open_source
from scal3r_ros.reconstruct.factory import open_reconstructor
from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.records import Chunk, Frame

pytest.importorskip("pycolmap", reason="pycolmap is absent")

BAG = Path(__file__).resolve().parents[3] / "demo" / "loop_room"


@pytest.fixture(scope="module")
def frames() -> tuple[Frame, ...]:
    """Six frames of the demo recording, and two that show nothing."""
    images = islice(open_source(BAG), 0, 18, 3)
    seen = [replace(image.decode(), id=number) for number, image in enumerate(images)]
    noise = [np.random.default_rng(i).integers(0, 255, seen[0].rgb.shape, np.uint8) for i in (6, 7)]
    return (*seen, *(replace(seen[0], id=6 + i, rgb=rgb) for i, rgb in enumerate(noise)))


PLAIN = SfmConfig(features="sift", dense=False, max_features=800)


def reconstruct(frames, sfm):
    config = Config(model=ModelConfig(reconstructor="sfm"), sfm=sfm)
    return open_reconstructor(config).reconstruct(Chunk(0, 0, frames))


def test_chunks_of_which_too_few_frames_are_registered_fail(frames):
    with pytest.raises(ReconstructionFailed, match="6 of 8 .*sfm.min_registered is 0.9"):
        reconstruct(frames, replace(PLAIN, min_registered=0.9))


def test_observations_that_miss_their_pixels_by_more_than_allowed_do_not_count(frames):
    assert len(reconstruct(frames[:6], replace(PLAIN, max_error=4.0)).frame_ids) == 6
    with pytest.raises(ReconstructionFailed):
        reconstruct(frames[:6], replace(PLAIN, max_error=0.1))


def test_dense_maps_have_the_width_and_the_neighbours_that_are_asked_for(frames):
    dense = replace(PLAIN, dense=True, dense_width=96)
    few, more = (reconstruct(frames[:6], replace(dense, dense_neighbours=n)) for n in (2, 4))
    assert few.depth.shape == more.depth.shape == (6, 72, 96)
    np.testing.assert_array_equal(few.T_chunk_camera, more.T_chunk_camera)
    known = [int(np.isfinite(prediction.depth).sum()) for prediction in (few, more)]
    assert known[0] > 0 and known[1] > 0 and known[0] != known[1], known
