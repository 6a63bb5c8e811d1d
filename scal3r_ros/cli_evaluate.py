"""Compare a trajectory or a map with ground truth.

Trajectories are TUM files (`seconds tx ty tz qx qy qz qw`), joined by time and aligned by the best
similarity, because images alone do not tell the scale. Clouds are PLY files; with trajectories
given too, the map is moved as they were.

  scal3r evaluate --trajectory result/trajectory.txt --groundtruth truth.txt
  scal3r evaluate --map result/map.ply --groundtruth-cloud truth.ply --threshold 0.05
  scal3r evaluate --suite worlds --help          (scores of the network itself)

ATE: RMSE of positions. RPE: RMSE of the motion between consecutive poses. Drift: mean error per
travelled length, over KITTI's 100 to 800 m, or over eighths of a shorter path.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scal3r_ros.io.ply import read_points
from scal3r_ros.io.report import write_report
from scal3r_ros.pipeline.evaluation import (
    CloudScore,
    TrajectoryScore,
    draw_comparison,
    jump,
    score_cloud,
    score_trajectory,
)
from scal3r_ros.pipeline.export import LIVE_TRAJECTORY
from scal3r_ros.pipeline.live_score import LiveScore, score_live


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `scal3r evaluate`."""
    parser.add_argument("--trajectory", type=_path, help="TUM file to judge")
    parser.add_argument(
        "--tracked", type=_path, help="tracked.csv of the node's export: live poses of all images"
    )
    parser.add_argument(
        "--live",
        type=_path,
        help="TUM file of what was published before corrections; default: the trajectory_live.txt "
        "beside --trajectory, if there is one",
    )
    parser.add_argument("--groundtruth", type=_path, help="TUM file with the truth")
    parser.add_argument(
        "--max-difference",
        type=float,
        default=0.01,
        metavar="S",
        help="join poses this near in time",
    )
    parser.add_argument(
        "--fixed-scale", action="store_true", help="align without scale: for metric trajectories"
    )
    parser.add_argument("--map", type=_path, help="PLY file to judge")
    parser.add_argument("--groundtruth-cloud", type=_path, help="PLY file with the truth")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.05,
        help="distance that counts as right (default: 0.05)",
    )
    parser.add_argument("--out", type=_path, help="folder for evaluation.json and evaluation.png")


def _path(text: str) -> Path:
    return Path(text).expanduser()


def run(args: argparse.Namespace) -> int:
    """`scal3r evaluate`; returns the exit code."""
    _check(args)
    facts: dict[str, Any] = {}
    score = None
    if args.trajectory:
        score, reference, estimate = score_trajectory(
            args.trajectory, args.groundtruth, args.max_difference, args.fixed_scale
        )
        facts["trajectory"] = _facts(score)
        print(_describe(score))
        if live := _live_facts(args, score):
            facts["live"] = live
            print(_describe_live(live))
        if args.out:
            draw_comparison(args.out / "evaluation.png", reference, estimate, score)
    if args.tracked:
        live = score_live(args.tracked, args.groundtruth, args.max_difference, args.fixed_scale)
        facts["tracked"] = asdict(live)
        print(_describe_tracked(live))
    if args.map:
        points = read_points(args.map)
        points = score.S_truth_map.apply(points) if score else points
        cloud = score_cloud(points, read_points(args.groundtruth_cloud), args.threshold)
        facts["map"] = asdict(cloud)
        print(_describe_cloud(cloud))
    if args.out:
        write_report(args.out / "evaluation.json", facts)
    return 0


def _live_facts(args: argparse.Namespace, final: TrajectoryScore) -> dict[str, Any]:
    """Scores of what was published when it was published, and how far it was moved since."""
    path = args.live or args.trajectory.with_name(LIVE_TRAJECTORY)
    if not path.is_file() and args.live is None:
        return {}
    score, _, _ = score_trajectory(path, args.groundtruth, args.max_difference, args.fixed_scale)
    moved = jump(path, args.trajectory, float(final.S_truth_map.scale))
    return _facts(score) | {"jump": asdict(moved)}


def _check(args: argparse.Namespace) -> None:
    pairs = (("trajectory", "tracked"), "groundtruth"), (("map",), "groundtruth_cloud")
    for given, needed in pairs:
        named = [name for name in given if getattr(args, name)]
        if bool(named) != bool(getattr(args, needed)):
            first = (named or given)[0]
            raise ValueError(f"--{first} and --{needed.replace('_', '-')} belong together")
    if not args.trajectory and not args.tracked and not args.map:
        raise ValueError("nothing to evaluate: give --trajectory and --groundtruth, --map and "
                         "--groundtruth-cloud")  # fmt: skip
    if not args.threshold > 0:
        raise ValueError(f"--threshold must be positive, found {args.threshold}")


def _facts(score: TrajectoryScore) -> dict[str, Any]:
    facts = {k: v for k, v in vars(score).items() if k not in ("drift", "S_truth_map")}
    return facts | {"drift": asdict(score.drift), "scale": float(score.S_truth_map.scale)}


def _describe(score: TrajectoryScore) -> str:
    lengths = score.drift.lengths
    over = f"over {lengths[0]:.3g} to {lengths[-1]:.3g}" if lengths else "path too short"
    return (
        f"{score.frames} poses, path {score.path_length:.4g}, scale "
        f"{float(score.S_truth_map.scale):.5g}\n"
        f"ATE    {score.ate_rmse:.4g}  ({score.ate_percent:.3g} % of the path)\n"
        f"RPE    {score.rpe_translation:.4g}, {score.rpe_rotation_deg:.3g} deg\n"
        f"drift  {score.drift.translation_percent:.3g} %, "
        f"{score.drift.rotation_deg_per_unit:.3g} deg per unit ({over})"
    )


def _describe_tracked(live: LiveScore) -> str:
    return (
        f"live   {100 * live.share:.1f} % of {live.images} images with a pose, "
        f"{1e3 * live.latency_median:.0f} ms after they came (median; 95 % within "
        f"{1e3 * live.latency_p95:.0f} ms)\n"
        f"       ATE {live.ate_rmse:.4g} ({live.ate_percent:.3g} % of the path), RPE over 1 s "
        f"{live.rpe_translation:.4g}, {live.rpe_rotation_deg:.3g} deg"
    )


def _describe_live(live: dict[str, Any]) -> str:
    moved = live["jump"]
    return (
        f"live   ATE {live['ate_rmse']:.4g}, RPE {live['rpe_translation']:.4g}, "
        f"{live['rpe_rotation_deg']:.3g} deg: each pose as published first; corrections moved it "
        f"by {moved['rms']:.4g} (RMS), at most {moved['largest']:.4g}"
    )


def _describe_cloud(score: CloudScore) -> str:
    return (
        f"Chamfer {score.chamfer:.4g} (accuracy {score.accuracy:.4g}, completeness "
        f"{score.completeness:.4g})\n"
        f"F1 {score.f1:.3f} at {score.threshold:g} (precision {score.precision:.3f}, recall "
        f"{score.recall:.3f})"
    )
