"""Which camera structure from motion works with when calibration arrives after the first image."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from scal3r_ros.config import SfmConfig
from scal3r_ros.io.inputs import open_source
from scal3r_ros.reconstruct.factory import open_features
from scal3r_ros.reconstruct.interface import MemoryState, ReconstructionFailed
from scal3r_ros.records import Chunk, Frame

pytest.importorskip("pycolmap", reason="pycolmap is absent")

BAG = Path(__file__).resolve().parents[3] / "demo" / "loop_room"


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Ten frames of the demo recording, with intrinsics."""
    images = islice(open_source(BAG), 0, 30, 3)
    return [replace(image.decode(), id=number) for number, image in enumerate(images)]


def test_frames_before_the_first_calibration_share_the_later_one(frames):
    from scal3r_ros.reconstruct.sfm.reconstructor import SfmReconstructor

    late = [replace(frame, intrinsics=None) for frame in frames[:2]] + frames[2:]
    expected = SfmReconstructor(SfmConfig(), open_features("auto")).reconstruct(
        Chunk(0, 0, tuple(frames))
    )
    found = SfmReconstructor(SfmConfig(), open_features("auto")).reconstruct(
        Chunk(0, 0, tuple(late))
    )
    np.testing.assert_array_equal(found.T_chunk_camera, expected.T_chunk_camera)
    np.testing.assert_array_equal(found.intrinsics, expected.intrinsics)
    assert len(found.frame_ids) == len(frames)


def test_a_frame_of_another_size_without_intrinsics_fails_the_chunk_by_name(frames):
    from scal3r_ros.reconstruct.sfm.reconstructor import SfmReconstructor

    odd = replace(frames[3], rgb=frames[3].rgb[:100], intrinsics=None)
    mixed = (*frames[:3], odd, *frames[4:])
    with pytest.raises(ReconstructionFailed, match="frame 3 has no intrinsics"):
        SfmReconstructor(SfmConfig(), open_features("sift")).reconstruct(Chunk(0, 0, mixed))


def test_frames_that_two_chunks_share_have_the_colours_of_rectified_images_in_both(frames):
    """The calibration found in the first chunk holds for the frames whose features are known."""
    from scal3r_ros.reconstruct.sfm.calibration import SelfCalibration
    from scal3r_ros.reconstruct.sfm.reconstructor import SfmReconstructor

    height, width = frames[0].rgb.shape[:2]
    found = SelfCalibration(frames[0].intrinsics[0, 0], -0.15, width, height)
    memory = {"words": np.zeros((0, 128)), "calibration": [found.focal, -0.15, width, height]}
    reconstructor = SfmReconstructor(SfmConfig(), open_features("sift"))
    reconstructor.restore(MemoryState("sfm", "sift-vlad", 0, memory))
    unknown = tuple(replace(frame, intrinsics=None) for frame in frames)
    first = reconstructor.reconstruct(Chunk(0, 0, unknown[:7]))
    second = reconstructor.reconstruct(Chunk(1, 0, unknown[3:], (3, 4, 5, 6)))
    shared = [i for i in (3, 4, 5, 6) if i in first.frame_ids and i in second.frame_ids]
    assert len(shared) >= 2
    for i in shared:
        ours, theirs = (p.rgb[p.frame_ids.index(i)] for p in (first, second))
        np.testing.assert_array_equal(ours, theirs)


def noise(count: int, scale: float = 1.0) -> list[Frame]:
    """Frames of unrelated textures."""
    random = np.random.default_rng(1)
    K = np.array([[200.0, 0, 160], [0, 200, 120], [0, 0, 1]])
    small = [random.integers(0, 255, (60, 80, 3)) * scale for _ in range(count)]
    images = [np.kron(image, np.ones((4, 4, 1))).astype(np.uint8) for image in small]
    return [Frame(i, i * 10**8, image, K) for i, image in enumerate(images)]


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (noise(1), "one frame alone.*gate.max_gap.*0 for no limit"),
        (noise(4, 0.01), r"too dark \(mean brightness 1 of 255\)"),
        (noise(4, 0.0), "fewer than 20 features.*too dark"),
        (noise(4), "their views do not overlap"),
    ],
    ids=["gap", "dark", "black", "apart"],
)
def test_each_cause_of_frames_without_common_features_is_told(frames, words, calibrated):
    from scal3r_ros.reconstruct.sfm.reconstructor import SfmReconstructor

    frames = [f if calibrated else replace(f, intrinsics=None) for f in frames]
    with pytest.raises(ReconstructionFailed, match=words):
        SfmReconstructor(SfmConfig(), open_features("sift")).reconstruct(Chunk(0, 0, tuple(frames)))
