"""The command from a root to a table: truth scores nothing, failures count, nothing twice."""

import json
from dataclasses import replace

import numpy as np
import pytest
from miniatures import WRITERS, small_city
from oracle import OracleReconstructor

from scal3r_ros.benchmarks import command
from scal3r_ros.benchmarks.registry import DATASETS
from scal3r_ros.benchmarks.run import run_sequence
from scal3r_ros.cli import main
from scal3r_ros.config import Config
from scal3r_ros.options import from_dict

SMALL = {"chunk.size": 8, "chunk.overlap": 4, "loop.enabled": False}


@pytest.mark.parametrize("name", ["kitti", "vkitti2", "oxford-spires"])
def test_a_reconstructor_that_knows_the_truth_scores_nothing(tmp_path, name):
    city = small_city()
    wanted = WRITERS[name](tmp_path, city)
    if name == "oxford-spires":
        city = replace(city, T_world_camera=city.T_world_camera[1:])
    dataset = DATASETS[name]
    config = from_dict(Config, SMALL | dict(dataset.options))
    sequence = dataset.read(tmp_path, wanted)
    oracle = OracleReconstructor(city)
    found = run_sequence(dataset, sequence, config, oracle, tmp_path / "out")
    assert found["scores"]["ate"] < 1e-3
    assert found["live"]["ate"] < 1e-3
    assert found["frames"]["scored"] == len(city)
    if name == "vkitti2":
        assert found["depth_consistency_of_truth"] > 0.5
        assert found["cloud"]["pose"]["f1"] > 0.95
    assert (tmp_path / "out/evaluation.png").stat().st_size > 1000


def test_a_broken_sequence_is_counted_and_a_scored_one_is_not_run_again(tmp_path, capsys):
    city = small_city()
    WRITERS["kitti"](tmp_path / "data", city)
    broken = tmp_path / "data/sequences/01"
    (broken / "image_2").mkdir(parents=True)
    (tmp_path / "data/poses/01.txt").write_text("1 2 3\n")
    arguments = ["benchmark", "kitti", "--root", str(tmp_path / "data"), "--quiet"]
    arguments += ["--out", str(tmp_path / "out"), "--reconstructor", "scal3r"]
    arguments += ["--set", "chunk.size=8", "chunk.overlap=4", "model.image_size=70"]
    assert main(arguments) == 3
    assert "01 failed" in capsys.readouterr().err
    result = json.loads((tmp_path / "out/kitti_00.json").read_text())
    assert result["status"] == "finished" and result["reconstructor"] == "scal3r"
    assert "Umeyama" in result["definitions"]["ate"] and result["frames"]["pictures"] == 12
    assert np.isfinite(result["scores"]["ate"])
    text = (tmp_path / "out/kitti.md").read_text()
    assert "| 01 | failed" in text and "1 of 2" in text and "AMB3R-SLAM | 13.11" in text
    stamp = (tmp_path / "out/kitti_00/map.ply").stat().st_mtime_ns
    assert main([*arguments, "--resume"]) == 3
    assert (tmp_path / "out/kitti_00/map.ply").stat().st_mtime_ns == stamp


def test_a_sequence_that_is_not_there_is_named(tmp_path, capsys):
    WRITERS["kitti"](tmp_path, small_city(3))
    arguments = ["benchmark", "kitti", "--root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--sequences", "07"]) != 0
    assert "no sequence 07" in capsys.readouterr().err
    assert command.DATASETS is DATASETS
