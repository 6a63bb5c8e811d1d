"""Two trajectories of one run: what was published when it was published, and what is known now."""

import json
from dataclasses import replace

import numpy as np
from mapper_runs import config, run
from oracle import REALISTIC, OracleReconstructor
from test_loops import LOOPS, twice  # noqa: F401

from scal3r_ros.cli import main
from scal3r_ros.io.tum import read_trajectory, write_trajectory
from scal3r_ros.pipeline.export import LIVE_TRAJECTORY, export
from scal3r_ros.pipeline.mapper import Mapper


def test_both_are_written_and_scored_with_the_jump_between_them(twice, tmp_path):  # noqa: F811
    mapper = Mapper(config(**LOOPS), OracleReconstructor(twice, REALISTIC))
    first: dict[int, np.ndarray] = {}
    for update in run(twice, mapper):
        for pose in update.poses:
            first.setdefault(pose.stamp_ns, pose.T_map_camera)
    assert mapper.counters["loop_closed"]
    mapper.save(tmp_path / "map")
    again = Mapper(config(**LOOPS), OracleReconstructor(twice, REALISTIC))
    again.load(tmp_path / "map")
    for source in (mapper, again):
        export(source, tmp_path)
        stamps, poses = read_trajectory(tmp_path / LIVE_TRAJECTORY)
        assert stamps.tolist() == sorted(first)
        np.testing.assert_allclose(poses, [first[stamp] for stamp in stamps.tolist()], atol=1e-6)
    true = [
        replace(pose, T_map_camera=twice.T_world_camera[pose.frame_id])
        for pose in mapper.trajectory()
    ]
    write_trajectory(tmp_path / "truth.txt", true)
    arguments = ["--trajectory", str(tmp_path / "trajectory.txt"), "--out", str(tmp_path)]
    assert main(["evaluate", *arguments, "--groundtruth", str(tmp_path / "truth.txt")]) == 0
    scores = json.loads((tmp_path / "evaluation.json").read_text())
    moved, live = scores["live"]["jump"], scores["live"]
    assert live["frames"] == moved["frames"] == len(twice)
    assert 0 < moved["rms"] <= moved["largest"]
    assert live["ate_rmse"] <= scores["trajectory"]["ate_rmse"] + moved["rms"]
    assert scores["trajectory"]["ate_rmse"] <= live["ate_rmse"] + moved["rms"]
