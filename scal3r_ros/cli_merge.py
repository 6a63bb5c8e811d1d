"""Join saved maps of one world into one, by places that they share.

The maps are folders that ~/save_map or autosave wrote; the first one's frame is kept. Frames that
look alike are reconstructed together, and a map is joined only if at least --least-loops places
imply the same. OUT/merge_report.json lists every pair of places that was tried, the scale between
the maps, and alarms where scales contradict each other. The maps themselves stay as they are.

  scal3r merge monday tuesday --out both
  scal3r merge monday tuesday --out both --config options.yaml --set localisation.threshold=0.1
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from scal3r_ros.cli_reconstruct import build_config
from scal3r_ros.pipeline.merge import REPORT, JoinedMap, MergeOptions, merge
from scal3r_ros.reconstruct.factory import PRESETS, open_reconstructor

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `scal3r merge`."""
    defaults = MergeOptions()
    parser.add_argument("maps", nargs="+", type=_path, help="folders with saved maps")
    parser.add_argument("--out", type=_path, required=True, help="folder for the joined map")
    parser.add_argument(
        "--reconstructor", choices=["auto", *sorted(PRESETS)], help="as the maps were made with"
    )
    parser.add_argument("--checkpoint", help="weights, as the maps were made with")
    parser.add_argument("--config", type=_path, help="YAML options, or a ROS parameter file")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="OPTION=VALUE", help="options, e.g. loop.window=30"
    )
    parser.add_argument(
        "--tries", type=int, default=defaults.tries, help="pairs of places tried for each map"
    )
    parser.add_argument(
        "--least-loops",
        type=int,
        default=defaults.least_loops,
        help="places that must imply the same; 1 believes a single one",
    )


def run(args: argparse.Namespace) -> int:
    """`scal3r merge`; returns the exit code."""
    args.mode = None
    config = build_config(args)
    if args.least_loops < 1 or args.tries < args.least_loops:
        raise ValueError(
            f"--least-loops must be 1 or more and at most --tries, found {args.least_loops} and "
            f"{args.tries}"
        )
    options = MergeOptions(args.tries, args.least_loops)
    joined = merge(config, open_reconstructor(config), args.maps, args.out, options)
    for entry in joined:
        print(_line(entry))
        for alarm in entry.alarms:
            log.warning("%s: %s", entry.folder, alarm)
    frames = sum(entry.frames for entry in joined)
    print(f"{len(joined)} maps with {frames} frames in {args.out}; {args.out / REPORT}")
    return 0


def _line(entry: JoinedMap) -> str:
    taken = sum(not row["refused"] for row in entry.loops)
    scale = "the others' frame" if entry.scale is None else f"scale {entry.scale:.4g}"
    waiting = f", {entry.waiting} unmapped frames left out" if entry.waiting else ""
    return (
        f"{entry.folder}: {entry.frames} frames, {taken} of {len(entry.loops)} places proven, "
        f"{scale}{waiting}"
    )


def _path(text: str) -> Path:
    return Path(text).expanduser()
