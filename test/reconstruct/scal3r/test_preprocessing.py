"""Images that are prepared for the network have exactly the size that was decided."""

import numpy as np
import pytest

from scal3r_ros.reconstruct.preprocessing import prepare_image, target_size


@pytest.mark.parametrize("patch", [7, 14])
def test_every_size_is_met_exactly(patch):
    """Also where the target is an odd number of pixels high."""
    for height, width, image_size in ((84, 112, 84), (240, 320, 77), (91, 63, 98), (63, 84, 84)):
        target = target_size(height, width, image_size, patch)
        prepared = prepare_image(np.zeros((height, width, 3), np.uint8), target, patch)
        assert prepared.rgb.shape == (*target, 3)
