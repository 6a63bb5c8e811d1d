"""Score a reconstructor on a public data set in its native layout.

  scal3r benchmark kitti --root /data/kitti --sequences 00 05 --out scores
  scal3r benchmark tum --root /data/tum --reconstructor sfm --out scores --resume

Written: one JSON a sequence with all definitions, versions and options, the map and pictures of
each, and one Markdown table beside published results. A sequence that fails is recorded and
counted, and the run goes on; --resume skips what is scored and goes on with what was
interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.metrics import NoScore
from scal3r_ros.benchmarks.registry import DATASETS
from scal3r_ros.benchmarks.run import facts_of, run_sequence
from scal3r_ros.benchmarks.table import table
from scal3r_ros.cli_reconstruct import ProgressBar, build_config
from scal3r_ros.config import Config
from scal3r_ros.files import write_text
from scal3r_ros.io.report import write_report
from scal3r_ros.io.source import BadInput
from scal3r_ros.pipeline.offline import WORK
from scal3r_ros.reconstruct.factory import PRESETS
from scal3r_ros.workers.torchrun import opened_reconstructor

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `scal3r benchmark`."""
    parser.add_argument("dataset", choices=sorted(DATASETS))
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--sequences", nargs="+", help="default: all that can be scored")
    parser.add_argument("--reconstructor", choices=["auto", *sorted(PRESETS)])
    parser.add_argument("--checkpoint", help="weights; default: the small network shipped here")
    parser.add_argument("--mode", choices=("stream", "batch", "finalize"))
    parser.add_argument("--config", type=Path, help="YAML options")
    parser.add_argument("--set", nargs="+", default=[], metavar="OPTION=VALUE")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """`scal3r benchmark`; 0 if every sequence was scored, else 3."""
    dataset = DATASETS[args.dataset]
    args.set = [f"{k}={v}" for k, v in dataset.options.items()] + args.set
    config = build_config(args)
    names = _names(dataset, args.root, args.sequences)
    results = []
    for name in names:
        results.append(_result(dataset, name, config, args))
        path = args.out / f"{dataset.name}.md"
        write_text(path, table(dataset, results))
    print(f"{path}: {sum(r['status'] == 'finished' for r in results)} of {len(names)} scored")
    return 0 if all(r["status"] == "finished" for r in results) else 3


def _names(dataset: Dataset, root: Path, wanted: Sequence[str] | None) -> list[str]:
    there = list(dataset.find(root))
    if unknown := sorted(set(wanted or ()) - set(there)):
        raise BadInput(
            f"{root} has no sequence {', '.join(unknown)} of {dataset.title}; found "
            f"{', '.join(there[:12])}"
        )
    return list(wanted) if wanted else there


def _result(
    dataset: Dataset, name: str, config: Config, args: argparse.Namespace
) -> dict[str, Any]:
    """Of one sequence: read if it is there already, else made and written."""
    short = name.replace("/", "_")
    path, folder = args.out / f"{dataset.name}_{short}.json", args.out / f"{dataset.name}_{short}"
    known = facts_of(dataset, name, config, "")
    if args.resume and path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        if found["status"] == "finished" and found["options"] == _through_json(known["options"]):
            log.info("%s %s is scored already", dataset.title, name)
            return found
    result = known | _scored(dataset, name, config, args, folder)
    write_report(path, result)
    return result


def _scored(
    dataset: Dataset, name: str, config: Config, args: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Scores, or why there are none: one bad sequence does not end a night's run."""
    try:
        sequence = dataset.read(args.root, name)
        log.info("%s %s: %d pictures", dataset.title, name, len(sequence.pictures))
        with (
            opened_reconstructor(config, folder / WORK) as reconstructor,
            ProgressBar(len(sequence.pictures), args.quiet) as bar,
        ):
            scores = run_sequence(
                dataset, sequence, config, reconstructor, folder, args.resume, bar.show
            )
            own = {"reconstructor": reconstructor.name, "notes": list(sequence.notes)}
        return scores | own
    except (BadInput, NoScore, OSError, RuntimeError) as error:
        print(f"{dataset.title} {name} failed: {error}", file=sys.stderr)
        return {"status": "failed", "reason": str(error)}


def _through_json(values: Any) -> Any:
    return json.loads(json.dumps(values))
