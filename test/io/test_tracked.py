"""The file of live poses: what was written is read; what nobody wrote is refused."""

import numpy as np
import pytest

from scal3r_ros import rigid
from scal3r_ros.io.source import BadInput
from scal3r_ros.io.tracked import COLUMNS, TrackedImage, read_tracked, write_tracked


def pose(random):
    q = random.normal(size=4)
    return rigid.from_parts(rigid.rotation_matrix(q), random.normal(size=3))


def test_written_images_are_read(tmp_path):
    random = np.random.default_rng(0)
    images = [TrackedImage(1_700_000_000_000_000_001 + i, 0.02 * i, pose(random)) for i in range(5)]
    images.insert(2, TrackedImage(5))
    write_tracked(tmp_path / "tracked.csv", images)
    again = read_tracked(tmp_path / "tracked.csv")
    assert [image.stamp_ns for image in again] == [image.stamp_ns for image in images]
    assert again[2].T_map_camera is None and again[2].seconds is None
    for a, b in zip(images, again):
        if a.T_map_camera is not None:
            assert np.allclose(a.T_map_camera, b.T_map_camera, atol=1e-7)
            assert b.seconds == pytest.approx(a.seconds)


@pytest.mark.parametrize(
    "row", ["1,2,3", "a,1,0,0,0,0,0,0,1", "1,1,0,0,0,0,0,0,0", "1,nan" + ",1" * 7]
)
def test_other_rows_are_refused(tmp_path, row):
    path = tmp_path / "tracked.csv"
    path.write_text(",".join(COLUMNS) + "\n" + row + "\n")
    with pytest.raises(BadInput, match="line 2"):
        read_tracked(path)
    path.write_text(row + "\n")
    with pytest.raises(BadInput, match="first line"):
        read_tracked(path)
