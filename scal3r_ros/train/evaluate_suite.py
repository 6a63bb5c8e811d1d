"""`scal3r evaluate --suite worlds|real`: the network's memory modes beside baselines, one table.

`worlds` renders tours through worlds of held-out seeds and textures; `real` takes recordings with
ground truth below --data.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scal3r_ros.texts import parse_yaml

if TYPE_CHECKING:
    from scal3r_ros.config import Config

log = logging.getLogger(__name__)

MEMORY_MODES = ("off", "local", "stream", "batch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the suite."""
    parser.add_argument(
        "--suite",
        choices=("worlds", "real"),
        default="worlds",
        help="held-out worlds, or recordings below --data",
    )
    parser.add_argument("--checkpoint", default="", help="empty: the embedded one")
    parser.add_argument("--data", type=Path, default=None, help="folder of recordings, suite real")
    parser.add_argument("--sequences", type=int, default=20, help="number of worlds")
    parser.add_argument("--frames", type=int, default=300, help="frames per world")
    parser.add_argument("--chunk", type=int, default=8, help="frames per chunk")
    parser.add_argument("--overlap", type=int, default=3)
    parser.add_argument("--stride", type=int, default=4, help="map every n-th frame")
    parser.add_argument(
        "--keep", type=Path, default=None, help="folder that keeps the rendered worlds"
    )
    parser.add_argument("--width", type=int, default=140, help="of the rendered images, pixels")
    parser.add_argument("--modes", nargs="+", choices=MEMORY_MODES, default=list(MEMORY_MODES))
    parser.add_argument(
        "--as-embedded",
        action="store_true",
        help="give the --checkpoint the options of the embedded network",
    )
    parser.add_argument(
        "--no-loops", dest="loops", action="store_false", help="leave out the runs with loops"
    )
    parser.add_argument(
        "--set",
        dest="changes",
        nargs="+",
        default=[],
        metavar="OPTION=VALUE",
        help="map with these",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--out", type=Path, default=None, help="write scores.json and table.md here"
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print the table; returns the exit code."""
    from scal3r_ros.train.sequences import real_sequences, world_sequences

    if arguments.suite == "real" and arguments.data is None:
        raise ValueError("suite real needs --data, a folder of recordings with groundtruth.txt")
    size = (arguments.width * 3 // 4, arguments.width)
    sequences = (
        world_sequences(
            arguments.sequences, arguments.frames, size, arguments.stride, folder=arguments.keep
        )
        if arguments.suite == "worlds"
        else real_sequences(arguments.data, arguments.stride)
    )
    results: dict[tuple[str, bool], _Case] = {
        (mode, loops): _Case()
        for mode in arguments.modes
        for loops in (False, True)[: 1 + arguments.loops]
    }
    for sequence in sequences:
        for (mode, loops), case in results.items():
            case.add(sequence.name, _evaluate(sequence, mode, loops, arguments))
        log.info("%s done", sequence.name)
        if arguments.out:
            _write(arguments.out, results)
    print(_table(results))
    return 0


def _write(folder: Path, results: dict[tuple[str, bool], _Case]) -> None:
    """Table and scores of the sequences so far."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(_table(results) + "\n")
    rows = {f"{mode}{'+loops' if loops else ''}": c.rows for (mode, loops), c in results.items()}
    (folder / "scores.json").write_text(json.dumps(rows, indent=1) + "\n")


def _evaluate(sequence, mode: str, loops: bool, arguments: argparse.Namespace):
    from scal3r_ros.reconstruct.factory import open_reconstructor
    from scal3r_ros.train.evaluation import evaluate_sequence

    config = suite_config(mode, loops, arguments)
    return evaluate_sequence(sequence, config, open_reconstructor(config))


def suite_config(mode: str, loops: bool, arguments: argparse.Namespace) -> Config:
    """What a sequence is mapped with: always the network, which `auto` need not be."""
    from scal3r_ros.config import Config
    from scal3r_ros.options import from_dict
    from scal3r_ros.reconstruct.factory import preset_options

    return from_dict(
        Config,
        {
            **preset_options("scal3r", "" if arguments.as_embedded else arguments.checkpoint),
            "model.reconstructor": "scal3r",
            "chunk.size": arguments.chunk,
            "chunk.overlap": arguments.overlap,
            "model.checkpoint": arguments.checkpoint,
            "model.device": arguments.device,
            "memory.mode": mode,
            "loop.enabled": loops,
            **dict(_parse_setting(change) for change in arguments.changes),
        },
    )


def _parse_setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set needs OPTION=VALUE, found {text!r}")
    return name, parse_yaml(value, f"--set {name}")


@dataclass
class _Case:
    """All sequences under one configuration."""

    evaluated: list = field(default_factory=list)
    rows: list[dict[str, float | str]] = field(default_factory=list)

    def add(self, name: str, result) -> None:
        self.evaluated.append(result)
        row = {"sequence": name, "ate": result.ate, "kept": result.kept, "parts": result.parts}
        row["loops"] = result.loops
        if result.chunk_scores is not None:
            row |= result.chunk_scores.summary()
        self.rows.append(row)

    def ate(self) -> str:
        values = [e.ate for e in self.evaluated if np.isfinite(e.ate)]
        return f"{np.median(values):.1f}" if values else "-"

    def parts(self) -> str:
        return f"{np.median([e.parts for e in self.evaluated]):.0f}"

    def standstill(self) -> str:
        return f"{np.median([e.ate_still for e in self.evaluated]):.1f}"


def _table(results: dict) -> str:
    """Medians over all frame pairs and chunks of all sequences, as a Markdown table."""
    lines = [
        "| | rotation, deg | direction, deg | AbsRel | delta < 1.25 | fov, deg | ATE, % "
        "| ATE with loops, % | parts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    first = next(iter(results.values()))
    lines += _baseline_rows(first)
    for mode in dict.fromkeys(mode for mode, _ in results):
        plain, closed = results[mode, False], results.get((mode, True))
        whole = f"{plain.ate()} | {closed.ate() if closed else '-'} | {plain.parts()}"
        lines.append(f"| memory {mode} | {_cells(plain)} | {whole} |")
    return "\n".join(lines)


def _cells(case: _Case) -> str:
    from scal3r_ros.train.scores import Scores

    scores = [e.chunk_scores for e in case.evaluated if e.chunk_scores is not None]
    return _summary_cells(Scores.join(scores).summary()) if scores else "- | - | - | - | -"


def _summary_cells(s: dict[str, float]) -> str:
    return (
        f"{s['rotation']:.2f} | {s['direction']:.1f} | {s['abs_rel']:.3f} | {s['delta']:.2f} | "
        f"{s['fov']:.1f}"
    )


def _baseline_rows(case: _Case) -> list[str]:
    """No rotation, mean motion and mean depth; the means are those of the evaluated sequences."""
    import torch

    from scal3r_ros.train.scores import Scores, baseline

    targets, still = [t for e in case.evaluated for t in e.targets], case.standstill()
    if not targets:
        return [f"| standstill | - | - | - | - | - | {still} | {still} | - |"]
    depth = torch.cat([t.log_depth for t in targets]).mean((0, 1))
    motion = torch.cat([t.encoding[..., :3] for t in targets]).mean(0)
    summary = Scores.join([baseline(t, depth, motion) for t in targets]).summary()
    name = "no rotation, mean motion, mean depth, standstill"
    return [f"| {name} | {_summary_cells(summary)} | {still} | {still} | - |"]
