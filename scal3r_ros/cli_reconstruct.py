"""Map a folder of images, a video file or a rosbag2 and write the result to a folder.

Written: trajectory.txt (TUM format, camera to map), trajectory_live.txt (each pose as it was first,
before corrections), map.ply (colour, confidence), report.json, trajectory.png, map_top.png,
map_view.png and a few depth_*.png. A file appears only when it is complete.

  scal3r reconstruct drive.mp4 --out result
  scal3r reconstruct bag/ --topic /camera/color/image_raw --out result
  scal3r reconstruct images/ --out result --reconstructor sfm --set chunk.size=16 chunk.overlap=8

Intrinsics come from a camera_info.yaml beside the images or from the bag; without them the network
needs none and sfm finds them. Any option of docs/parameters.md can be given with --set or in the
YAML file of --config; the command line wins.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scal3r_ros.config import Config, read_options
from scal3r_ros.io.bag import BagSource
from scal3r_ros.io.bag_measurements import OPTIONS
from scal3r_ros.io.exports.formats import FORMATS
from scal3r_ros.io.inputs import open_measurements, open_source
from scal3r_ros.io.measurements import Measurements, wanted_measurements
from scal3r_ros.io.source import BadInput, FrameSource
from scal3r_ros.io.static_transforms import mount_matrix
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.options import flatten, from_dict, walk_options
from scal3r_ros.pipeline.export import REPORT
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.pipeline.offline import WORK, RunResult
from scal3r_ros.pipeline.offline import run as map_recording
from scal3r_ros.reconstruct.factory import (
    PRESETS,
    known_limits,
    preset_for,
)
from scal3r_ros.texts import parse_yaml
from scal3r_ros.workers.torchrun import is_helper, opened_reconstructor

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `scal3r reconstruct`."""
    parser.add_argument("input", type=_path, help="folder, video, bag folder, .db3 or .mcap")
    parser.add_argument("--out", type=_path, required=True, help="folder for the results")
    parser.add_argument(
        "--reconstructor",
        choices=["auto", *sorted(PRESETS)],
        help="default: auto, scal3r where there are weights, else sfm, which needs none",
    )
    parser.add_argument("--checkpoint", help="weights; default: the small network shipped here")
    parser.add_argument(
        "--mode",
        choices=("stream", "batch", "finalize"),
        help="memory of the network: causal (default), all chunks at once, or one, then the other",
    )
    parser.add_argument("--config", type=_path, help="YAML options, or a ROS parameter file")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="OPTION=VALUE", help="options, e.g. loop.window=30"
    )
    parser.add_argument("--topic", default="", help="image topic, if a bag has several")
    for kind, option in OPTIONS.items():
        text = f"{kind} topic, if a bag has several"
        parser.add_argument(option, dest=f"{kind}_topic", default="", help=text)
    parser.add_argument(
        "--camera-mount",
        nargs=7,
        type=float,
        metavar=tuple("X Y Z QX QY QZ QW".split()),
        help="camera on the body of the odometry, if the bag's /tf_static does not tell",
    )
    parser.add_argument("--camera-info", type=_path, help="calibration file (camera_info.yaml)")
    parser.add_argument(
        "--images", default="", metavar="GLOB", help="images of a folder, if it holds several kinds"
    )
    parser.add_argument(
        "--depth-unit", default="", metavar="UNIT", help="depth images: mm, m, tum, or per metre"
    )
    parser.add_argument(
        "--rate", type=float, default=10.0, help="Hz, for images without stamps (default: 10)"
    )
    parser.add_argument(
        "--export",
        nargs="+",
        default=[],
        metavar="FORMAT",
        choices=list(FORMATS),
        help=f"also write the map as: {', '.join(FORMATS)} (docs/exports.md)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _path(text: str) -> Path:
    """A path in which `~` is the home folder, also after `=`, where shells leave it alone."""
    return Path(text).expanduser()


def run(args: argparse.Namespace) -> int:
    """`scal3r reconstruct`; returns the exit code."""
    with _older_results_told(args.out):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    config = build_config(args)
    if is_helper():  # one of several processes of torchrun, which only lends its device
        from scal3r_ros.workers.sharded import serve

        return serve(config)
    if not 1e-4 <= args.rate <= 1e6:
        raise BadInput(f"--rate must be positive, 0.0001 to 1000000 Hz, found {args.rate}")
    source = open_source(
        args.input,
        args.topic,
        args.rate,
        args.camera_info,
        config.input.max_pixels,
        args.images,
    )
    measurements = _measurements(args, config, source)
    log.info("%s: %s", args.input, source.description)
    if limits := known_limits(config):
        log.warning(limits)
    work, total = args.out / WORK, len(source)
    with (
        _saved_when_terminated(),
        opened_reconstructor(config, work) as reconstructor,
        ProgressBar(total, args.quiet) as bar,
    ):
        try:
            outcome = map_recording(
                config,
                source,
                reconstructor,
                args.out,
                args.resume,
                bar.show,
                measurements=measurements,
                formats=args.export,
            )
        except KeyboardInterrupt as interrupt:
            reason = str(interrupt) or "interrupted"
            print(f"{reason}; go on with the same command and --resume", file=sys.stderr)
            return 130
    return _conclude(outcome, args.out)


@contextmanager
def _older_results_told(out: Path) -> Iterator[None]:
    """Whatever ends a run early: results of an earlier one must not look like those of this one."""
    before = _age(out / REPORT)
    try:
        yield
    finally:
        if before is not None and _age(out / REPORT) == before:
            print(f"{out} holds the results of an earlier run, unchanged", file=sys.stderr)


def _age(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None


def build_config(args: argparse.Namespace) -> Config:
    """Defaults of the reconstructor, under the file, under the command line."""
    file = _file_options(args.config) if args.config else {}
    given: dict[str, Any] = dict(_parse_setting(text) for text in args.set)
    named = {
        "model.reconstructor": args.reconstructor,
        "model.checkpoint": args.checkpoint,
        "memory.mode": args.mode,
    }
    chosen = file | given | {name: value for name, value in named.items() if value is not None}
    return from_dict(Config, {**preset_for(from_dict(Config, chosen)), **chosen})


def _measurements(
    args: argparse.Namespace, config: Config, source: FrameSource
) -> Measurements | None:
    """What the input measures beside images, if the configuration asks for it."""
    named = {kind: getattr(args, f"{kind}_topic") for kind in OPTIONS}
    named = {kind: name for kind, name in named.items() if name}
    if named and not isinstance(source, BagSource):
        raise BadInput(f"{args.input} is no bag, so it has no topic {next(iter(named.values()))}")
    wanted = wanted_measurements(config.scale.sources, config.map.alignment, named)
    if unused := sorted(set(named) - set(wanted)):
        raise BadInput(
            f"{OPTIONS[unused[0]]} is given, but neither scale.source nor map.alignment uses "
            f"{unused[0]}"
        )
    mount = None if args.camera_mount is None else mount_matrix(args.camera_mount)
    return open_measurements(source, args.input, wanted, named, mount, args.depth_unit)


def _file_options(path: Path) -> dict[str, Any]:
    """Flat options of the mapping method; those of the node are checked and left out."""
    options = flatten(read_options(path, NodeConfig))
    ours = {option.name for option in walk_options(Config)}
    from_dict(NodeConfig, {name: value for name, value in options.items() if name not in ours})
    return {name: value for name, value in options.items() if name in ours}


def _parse_setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set needs OPTION=VALUE, found {text!r}")
    return name, parse_yaml(value, f"--set {name}") if value else ""


@contextmanager
def _saved_when_terminated() -> Iterator[None]:
    """SIGTERM as Ctrl-C, but a second one does not disturb the saving."""

    def interrupt(number: int, _) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _conclude(outcome: RunResult, out: Path) -> int:
    if outcome.input_error:
        print(f"scal3r reconstruct: {outcome.input_error}", file=sys.stderr)
        print(f"{outcome.frames} frames read before are mapped in {out}", file=sys.stderr)
        return 1
    if not outcome.frames:
        print(
            f"scal3r reconstruct: nothing could be mapped; {outcome.files[-1]} says why, chunk by "
            f"chunk",
            file=sys.stderr,
        )
        return 3
    print(f"{outcome.frames} frames mapped; results in {out}")
    return 0


class ProgressBar:
    """A progress bar on standard error, none where that is no terminal or `quiet`."""

    def __init__(self, total: int, quiet: bool) -> None:
        from tqdm import tqdm

        hidden = True if quiet else None
        self._bar = tqdm(total=total or None, unit="frame", disable=hidden, dynamic_ncols=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def show(self, count: int, mapper: Mapper) -> None:
        self._bar.update(count - self._bar.n)
        numbers: Mapping[str, Any] = {
            "chunks": mapper.counters["chunks"],
            "loops": mapper.counters["loop_closed"],
            "failed": mapper.counters["chunk_failed"],
        }
        self._bar.set_postfix(numbers, refresh=False)
