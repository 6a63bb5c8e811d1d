"""Write a saved map in formats of other programs.

The map is a folder that ~/save_map (or autosave) of the node wrote; the network that made it is not
needed. Formats and what they need: docs/exports.md.

  scal3r export ~/.ros/scal3r/mapping_node --out result --format pcd las colmap
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scal3r_ros.io.exports.formats import FORMATS, write
from scal3r_ros.pipeline.map_view import map_view, saved_map


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `scal3r export`."""
    parser.add_argument("map", type=Path, help="folder of a saved map")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument(
        "--format",
        nargs="+",
        default=[],
        metavar="FORMAT",
        choices=list(FORMATS),
        help=f"one or several of: {', '.join(FORMATS)}",
    )
    parser.add_argument("--grid", action="store_true", help="the same as --format grid")


def run(args: argparse.Namespace) -> int:
    """`scal3r export`; returns the exit code."""
    names = [*args.format, *(["grid"] if args.grid else [])]
    if not names:
        raise ValueError("say with --format or --grid what to write")
    with saved_map(args.map.expanduser()) as state:
        files = write(map_view(state), args.out.expanduser(), names)
    print(f"{len(files)} files in {args.out}")
    return 0
