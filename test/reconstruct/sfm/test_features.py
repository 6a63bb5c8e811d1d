"""Features of an image and of the same image moved: found again, each by its kind's rules."""

import cv2
import numpy as np
import pytest

from scal3r_ros.reconstruct.factory import MissingLibrary, open_features

SHIFT = np.array([16, 8])


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    scene = cv2.resize(random.integers(0, 255, (60, 80, 3), np.uint8), (480, 360))
    return scene[64:304, 64:384], scene[64 + 8 : 304 + 8, 64 + 16 : 384 + 16]


@pytest.mark.parametrize("name", ["sift", "xfeat", "both"])
def test_matches_follow_the_motion(images, name):
    try:
        kind = open_features(name)
    except MissingLibrary as missing:
        pytest.skip(str(missing))
    first, second = (kind.extract(np.ascontiguousarray(image), 600) for image in images)
    assert len(first.pixels) <= 600
    matches = kind.match(first, second)
    moved = first.pixels[matches[:, 0]] - second.pixels[matches[:, 1]]
    off = np.linalg.norm(moved - SHIFT, axis=1)
    assert len(matches) > 60 and np.median(off) < 0.7
    assert len(np.unique(matches[:, 0])) == len(matches)
    places = kind.for_places(first.descriptors)
    assert places.shape[1] == kind.width
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 1, atol=0.02)
