"""Measure speed and memory of the network, the mapping method, several processes and the node."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from pathlib import Path

BENCHMARKS = {
    "model": "scal3r_ros.bench.model",
    "loger": "scal3r_ros.bench.loger",
    "mapping": "scal3r_ros.bench.mapping",
    "fusion": "scal3r_ros.bench.fusion",
    "floor": "scal3r_ros.bench.floor",
    "loops": "scal3r_ros.bench.false_loops",
    "places": "scal3r_ros.bench.places",
    "localisation": "scal3r_ros.bench.localisation",
    "shortcuts": "scal3r_ros.bench.shortcuts",
    "real": "scal3r_ros.bench.recordings",
    "distributed": "scal3r_ros.bench.distributed",
    "fuzz": "scal3r_ros.bench.fuzz",
    "node": "scal3r_ros.nodes.bench.latency",
    "soak": "scal3r_ros.nodes.bench.soak",
    "node-fuzz": "scal3r_ros.nodes.bench.fuzz",
}
_SIZES = {"soak": "frames", "node-fuzz": "messages", "localisation": "strangers"}
"""Parts that take as long as one wants: the option that says how long."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `scal3r bench`."""
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(BENCHMARKS)}; or all"
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for the JSON")
    parser.add_argument("--quick", action="store_true", help="smallest sizes")
    parser.add_argument("--data", type=Path, help="of real: folder of sequences")
    for part, size in _SIZES.items():
        parser.add_argument(f"--{size}", type=int, help=f"of {part}")
    parser.epilog = "fuzz --messages is node-fuzz: the node's inputs instead of the readers"


def run(args: argparse.Namespace) -> None:
    """Run the parts one after the other; each prints its table and writes `PART.json`."""
    unknown = sorted(set(args.parts) - set(BENCHMARKS))
    if unknown:
        raise ValueError(f"unknown parts {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}")
    for name in args.parts or _runnable():
        name = "node-fuzz" if name == "fuzz" and args.messages is not None else name
        module = importlib.import_module(BENCHMARKS[name])
        parser = argparse.ArgumentParser(description=module.__doc__)
        module.add_arguments(parser)
        chosen = ["--out", str(args.out / f"{name}.json"), *(["--quick"] if args.quick else [])]
        size = getattr(args, _SIZES.get(name, ""), None)
        chosen += [f"--{_SIZES[name]}", str(size)] if size is not None else []
        chosen += ["--data", str(args.data)] if name == "real" and args.data is not None else []
        print(f"== {name}")
        module.run(parser.parse_args(chosen))


def _runnable() -> list[str]:
    """All parts but those that take as long as one wants or need recordings; that of the node needs
    ROS."""
    ros = importlib.util.find_spec("rclpy") is not None
    left_out = {*_SIZES, "real", *([] if ros else ["node"])}
    return [name for name in BENCHMARKS if name not in left_out]
