"""Real sequences in the benchmark: what is measured is what is true of made ones."""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from scal3r_ros.bench.recordings import depth_error, map_sequence, sequences, table
from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.source import BadInput

ROOM = Path(__file__).resolve().parents[2] / "demo" / "loop_room"


def test_depth_is_compared_after_one_scale_and_only_where_both_are_known():
    truth = np.full((40, 60), 2.0, np.float32)
    truth[:10] = 0.0
    depth = np.full((20, 30), 6.0, np.float32)
    depth[:, 20:] *= 1.05
    depth[10:15] = np.nan
    error, coverage = depth_error(depth, truth)
    assert error == pytest.approx(0.0, abs=1e-6) and coverage == pytest.approx(2 / 3)
    depth[:, 10:] = 6.3
    assert depth_error(depth, truth)[0] == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(depth_error(np.full((20, 30), np.nan), truth)[0])


def test_a_folder_is_mapped_and_scored(tmp_path):
    pytest.importorskip("pycolmap", reason="pycolmap is absent")
    folder = tmp_path / "walk"
    (folder / "rgb").mkdir(parents=True)
    lines, poses = [], []
    for number, image in enumerate(islice(open_source(ROOM), 0, 40, 4)):
        frame = image.decode()
        cv2.imwrite(str(folder / f"rgb/{number}.png"), frame.rgb[..., ::-1])
        lines.append(f"{number} rgb/{number}.png")
        poses.append(f"{number} {number} {number**2 / 9} {number % 3} 0 0 0 1")  # not the true way
    (folder / "rgb.txt").write_text("\n".join(lines))
    (folder / "groundtruth.txt").write_text("\n".join(poses))
    assert sequences(tmp_path) == [folder]
    row = map_sequence(folder, "sfm, SIFT")
    assert (row.frames, row.registered, row.parts) == (10, 10, 1)
    assert row.ate_percent > 0 and row.depth_error is None and row.seconds > 0
    assert 0 < row.disagreement < 0.05
    assert sum(row.stages.values()) <= row.seconds * 1.001
    assert "| walk | sfm, SIFT | 10/10 | 1 |" in table([row])


def test_a_folder_without_sequences_is_told(tmp_path):
    with pytest.raises(BadInput, match="holds no folder with an rgb.txt"):
        sequences(tmp_path)
