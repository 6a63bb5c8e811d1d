"""One sequence through the mapper, and its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from scal3r_ros.benchmarks import metrics
from scal3r_ros.benchmarks.clouds import cloud_scores, true_cloud
from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.self_check import check_poses
from scal3r_ros.benchmarks.sequence import BenchmarkSequence, SequenceSource
from scal3r_ros.config import Config
from scal3r_ros.io.pictures import draw_trajectory
from scal3r_ros.io.ply import read_points
from scal3r_ros.io.report import versions
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.options import to_dict
from scal3r_ros.pipeline import offline
from scal3r_ros.pipeline.export import LIVE_TRAJECTORY
from scal3r_ros.reconstruct.interface import Reconstructor

RESIZE = {0: "the network's own: width fixed, height floored to whole patches"}


def run_sequence(
    dataset: Dataset,
    sequence: BenchmarkSequence,
    config: Config,
    reconstructor: Reconstructor,
    out: Path,
    resume: bool = False,
    progress: Callable[[int, Any], None] | None = None,
) -> dict[str, Any]:
    """Map and score; results of the mapper stay in `out`. Raises what the mapper raises, and
    `NoScore` for a trajectory that cannot be compared."""
    consistency = check_poses(sequence)
    offline.run(config, SequenceSource(sequence), reconstructor, out, resume, progress)
    estimate = _by_place(sequence, out / "trajectory.txt")
    places = sorted(set(estimate) & set(sequence.truth))
    if not places:
        raise metrics.NoScore("no mapped frame has a true pose")
    aligned = metrics.align(*_paired(estimate, sequence.truth, places))
    draw_trajectory(
        out / "evaluation.png",
        [aligned.poses[:, :3, 3], aligned.truth[:, :3, 3]],
        np.zeros((0, 2, 3)),
        "m",
        f"{dataset.title} {sequence.name}: ATE {metrics.ate(aligned):.4g} m",
    )
    return {
        "status": "finished",
        "frames": {
            "pictures": len(sequence.pictures),
            "with_truth": len(sequence.truth),
            "mapped": len(estimate),
            "scored": len(places),
            "dropped": dict(sequence.dropped),
        },
        "depth_consistency_of_truth": consistency,
        "scores": _scores(dataset, aligned),
        "live": _live_scores(sequence, out / LIVE_TRAJECTORY),
        "cloud": _cloud(dataset, sequence, aligned, out / "map.ply"),
    }


def facts_of(dataset: Dataset, name: str, config: Config, reconstructor: str) -> dict[str, Any]:
    """What a result says beside its scores, so that nobody compares unlike things."""
    return {
        "dataset": dataset.title,
        "sequence": name,
        "protocol": dataset.protocol,
        "definitions": metrics.DEFINITIONS,
        "resize": RESIZE.get(config.model.image_size, f"longest side {config.model.image_size} px"),
        "reconstructor": reconstructor,
        "options": to_dict(config),
        "versions": versions(),
    }


def _by_place(sequence: BenchmarkSequence, path: Path) -> dict[int, np.ndarray]:
    """Poses by position of the picture: stamps tell which is whose."""
    place = {picture.stamp_ns: n for n, picture in enumerate(sequence.pictures)}
    stamps, poses = read_trajectory(path)
    return {place[stamp]: pose for stamp, pose in zip(stamps.tolist(), poses) if stamp in place}


def _paired(
    estimate: Mapping[int, np.ndarray], truth: Mapping[int, np.ndarray], places: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([estimate[i] for i in places]), np.stack([truth[i] for i in places])


def _scores(dataset: Dataset, aligned: metrics.Aligned) -> dict[str, Any]:
    shift, turn = metrics.rpe(aligned)
    whole = metrics.path_length(aligned.truth)
    scores: dict[str, Any] = {
        "ate": metrics.ate(aligned),
        "ate_percent": 100 * metrics.ate(aligned) / whole if whole else None,
        "path": whole,
        "scale": float(aligned.S_truth_map.scale),
        "rpe_translation": shift,
        "rpe_rotation_deg": turn,
    }
    if dataset.segments:
        of = metrics.kitti_segments if dataset.segments == "kitti" else metrics.vbr_segments
        scores["segments"] = asdict(of(aligned)) | {"rule": dataset.segments}
    scores |= {f"auc_{t}": metrics.pose_auc(aligned, t) for t in dataset.auc}
    return scores


def _live_scores(sequence: BenchmarkSequence, path: Path) -> dict[str, float] | None:
    """ATE of what was published when it was published."""
    if not path.is_file():
        return None
    live = _by_place(sequence, path)
    places = sorted(set(live) & set(sequence.truth))
    try:
        aligned = metrics.align(*_paired(live, sequence.truth, places))
    except (metrics.NoScore, ValueError):
        return None
    return {"ate": metrics.ate(aligned)}


def _cloud(
    dataset: Dataset, sequence: BenchmarkSequence, aligned: metrics.Aligned, path: Path
) -> dict[str, Any] | None:
    rule = dataset.cloud
    if not rule or sequence.depth is None or sequence.depth_intrinsics is None:
        return None
    places = [i for i in sorted(sequence.truth) if i % int(rule["every"]) == 0]
    depths = []
    for place in places:
        depth = sequence.depth(place)
        depths.append(np.where(depth < rule["max_depth"], depth, np.float32(np.nan)))
    poses = [sequence.truth[i] for i in places]
    truth = true_cloud(depths, poses, sequence.depth_intrinsics, rule["voxel"])
    points = aligned.S_truth_map.apply(read_points(path))
    if not len(points) or not len(truth):
        return None
    return cloud_scores(points, truth, rule["voxel"], rule["tau"], rule["icp_reach"])
