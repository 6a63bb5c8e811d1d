"""The live view of rerun, recorded to a file and read back by rerun."""

import numpy as np
import pytest

from scal3r_ros.io import rerun_view
from scal3r_ros.io.view_geometry import ViewSnapshot
from scal3r_ros.io.viewer import ViewerMissing


def snapshot():
    points = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = range(4)
    return ViewSnapshot(points, np.zeros((500, 3), np.uint8), poses, np.zeros((1, 2, 3)))


def test_without_the_package_a_sentence_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rerun", None)
    with pytest.raises(ViewerMissing, match="rerun-sdk is absent.*viewer.kind to page"):
        rerun_view.RerunView("rerun+http://127.0.0.1:9876/proxy")


def test_what_is_shown_is_in_the_recording(tmp_path):
    pytest.importorskip("rerun", reason="rerun-sdk is absent; it is large and optional")
    path = tmp_path / "live.rrd"
    view = rerun_view.RerunView(f"file:{path}", max_points=100)
    view.update(snapshot())
    view.show(image=np.zeros((48, 64, 3), np.uint8), status={"state": "ready"})
    view.close()
    view.update(snapshot())  # after the end nothing happens
    data = path.read_bytes()
    for entity in (b"map/points", b"map/path", b"map/loops", b"map/camera", b"status"):
        assert entity in data
