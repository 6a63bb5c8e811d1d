"""The Markdown table of a data set: ours, what is published beside it, and every definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scal3r_ros.benchmarks import clouds, metrics
from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.published import PUBLISHED

COLUMNS = "sequence | scored / pictures | path m | ATE m | ATE % | live ATE m | RPE m | RPE deg"


def table(dataset: Dataset, results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of all results of a data set; those that failed count and are named."""
    finished = [r for r in results if r["status"] == "finished"]
    stretch = " | RTE | RRE" if dataset.segments else ""
    cloud = " | CD mean | F1" if dataset.cloud else ""
    head = COLUMNS + stretch + cloud
    lines = [f"# {dataset.title}", "", f"Protocol: {dataset.protocol}.", ""]
    lines += [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    lines += [_row(dataset, result) for result in results]
    ates = [r["scores"]["ate"] for r in finished]
    mean = f"{np.mean(ates):.3f} m" if ates else "none"
    lines += ["", f"Mean ATE of those finished: {mean}, {len(finished)} of {len(results)}.", ""]
    if rows := PUBLISHED.get(dataset.name):
        lines += ["Published by others:", "", "| system | ATE m | source |", "|---|---|---|"]
        lines += [f"| {row.system} | {row.value} | {row.source} |" for row in rows] + [""]
    lines += ["Definitions:", ""]
    lines += [f"- {name}: {text}." for name, text in metrics.DEFINITIONS.items()]
    lines += [f"- cloud: {clouds.DEFINITION}."] if dataset.cloud else []
    return "\n".join(lines) + "\n"


def _row(dataset: Dataset, result: Mapping[str, Any]) -> str:
    if result["status"] != "finished":
        return f"| {result['sequence']} | failed: {result['reason']} |"
    scores, frames, live = result["scores"], result["frames"], result["live"]
    cells = [
        result["sequence"],
        f"{frames['scored']} / {frames['pictures']}",
        f"{scores['path']:.1f}",
        f"{scores['ate']:.3f}",
        f"{scores['ate_percent']:.2f}" if scores["ate_percent"] is not None else "",
        f"{live['ate']:.3f}" if live else "",
        f"{scores['rpe_translation']:.3f}",
        f"{scores['rpe_rotation_deg']:.2f}",
    ]
    if dataset.segments:
        of = scores["segments"]
        cells += [f"{of[k]:.3f}" if of["count"] else "" for k in ("rte", "rre")]
    if dataset.cloud:
        cloud = result["cloud"]
        cells += [f"{cloud['pose'][k]:.3f}" if cloud else "" for k in ("cd_mean", "f1")]
    return "| " + " | ".join(cells) + " |"
