"""Real sequences through the whole method with several reconstructors: frames, accuracy, time.

Every folder below `--data` with images (`rgb.txt`, or what else `scal3r reconstruct` reads),
optionally `groundtruth.txt` (TUM) and depth images (`depth.txt`), is mapped as the command line
would.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.io.folder_depth import FolderDepth
from scal3r_ros.io.inputs import open_source
from scal3r_ros.io.source import BadInput
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline import offline
from scal3r_ros.pipeline.evaluation import score_trajectory
from scal3r_ros.reconstruct.factory import open_reconstructor, preset_options
from scal3r_ros.reconstruct.interface import Outcome, Reconstructor
from scal3r_ros.records import Chunk, ChunkPrediction

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "sfm, SIFT": {"model.reconstructor": "sfm", "sfm.features": "sift"},
    "sfm, XFeat": {"model.reconstructor": "sfm", "sfm.features": "xfeat"},
    "sfm": {"model.reconstructor": "sfm"},
    "embedded": {"model.reconstructor": "scal3r"},
    "embedded + bundle": {"model.reconstructor": "scal3r", "model.refine": "bundle"},
}
_SAME_TIME = 20_000_000
"""Nanoseconds between an image and its depth image, at most."""


@dataclass(frozen=True)
class Row:
    """One sequence with one reconstructor."""

    sequence: str
    variant: str
    frames: int
    registered: int
    """In the largest part."""
    parts: int
    ate_percent: float | None
    """Of the path, after similarity alignment; None without ground truth or three poses."""
    seconds: float
    """Processor time per frame, all of it."""
    stages: Mapping[str, float]
    """The same by stage of the reconstructor, shared out as the clock went."""
    depth_error: float | None
    """Median over the frames of the median relative error, one scale a frame."""
    coverage: float | None
    """Median share of the measured pixels that have a depth."""
    disagreement: float | None
    """Median relative difference between frames' depths of one point (`report.json`)."""


@dataclass
class _Observed:
    """A reconstructor whose predictions are compared with depth images as they come."""

    inner: Reconstructor
    truth: Mapping[int, Any]
    """How to read the depth image at a stamp."""
    errors: dict[int, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name, self.round_size = self.inner.name, self.inner.round_size
        self.reset, self.state = self.inner.reset, self.inner.state
        self.restore = self.inner.restore

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        return self._note(chunk, self.inner.reconstruct(chunk, contribute))

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        outcomes = self.inner.reconstruct_round(chunks)
        for chunk, outcome in zip(chunks, outcomes):
            if isinstance(outcome, ChunkPrediction):
                self._note(chunk, outcome)
        return outcomes

    def _note(self, chunk: Chunk, prediction: ChunkPrediction) -> ChunkPrediction:
        for stage, seconds in prediction.timings.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if chunk.kind == "sequence":
            stamps = {frame.id: frame.stamp_ns for frame in chunk.frames}
            for row, frame_id in enumerate(prediction.frame_ids):
                read = self.truth.get(stamps[frame_id])
                if read is not None:
                    self.errors[frame_id] = depth_error(prediction.depth[row], read())
        return prediction


def depth_error(depth: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Median relative error of a depth map (H, W) after the best scale, and the share of the
    truth's pixels (0: unknown) that have a depth."""
    size = depth.shape[::-1]
    truth = cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST)
    measured = truth > 0
    both = measured & np.isfinite(depth) & (depth > 0)
    if not both.any():
        return float("nan"), 0.0
    ratio = depth[both] / truth[both]
    return float(np.median(np.abs(ratio / np.median(ratio) - 1))), both.sum() / measured.sum()


def map_sequence(folder: Path, variant: str) -> Row:
    """Map one folder with one of the variants."""
    source = open_source(folder)
    options = dict(VARIANTS[variant])
    config = _config(options)
    observed = _Observed(open_reconstructor(config), _depth_images(folder, source))
    with tempfile.TemporaryDirectory() as out:
        started = time.process_time()
        offline.run(config, source, observed, out)
        seconds = time.process_time() - started
        report = json.loads((Path(out) / "report.json").read_text())
        ate = _ate(Path(out), folder)
    errors = np.array(list(observed.errors.values())).reshape(-1, 2)
    clock = sum(observed.seconds.values()) or 1.0
    share = min(seconds, clock) / clock / len(source)
    return Row(
        folder.name,
        variant,
        len(source),
        report["parts"][0]["frames"] if report["parts"] else 0,
        len(report["parts"]),
        ate,
        seconds / len(source),
        {stage: spent * share for stage, spent in observed.seconds.items()},
        float(np.nanmedian(errors[:, 0])) if np.isfinite(errors[:, 0]).any() else None,
        float(np.median(errors[:, 1])) if len(errors) else None,
        report["quality"]["disagreement"],
    )


def _config(chosen: Mapping[str, Any]) -> Config:
    """The defaults that suit the reconstructor, and what is chosen."""
    options = {**preset_options(str(chosen["model.reconstructor"]), ""), **chosen}
    sections: dict[str, dict[str, Any]] = {"gate": {"max_gap": 0.0}}
    for name, value in options.items():
        section, _, option = name.partition(".")
        sections.setdefault(section, {})[option] = value
    return from_dict(Config, sections)


def _depth_images(folder: Path, source: Any) -> dict[int, Any]:
    """How to read the depth image of each image, by the image's stamp."""
    index = folder / "depth.txt"
    if not index.is_file():
        return {}
    images = [(item.stamp_ns, item.read) for item in FolderDepth(index)]
    stamps = np.array([stamp for stamp, _ in images])
    found = {}
    for image in source:
        nearest = int(np.abs(stamps - image.stamp_ns).argmin())
        if abs(int(stamps[nearest]) - image.stamp_ns) <= _SAME_TIME:
            found[image.stamp_ns] = images[nearest][1]
    return found


def _ate(out: Path, folder: Path) -> float | None:
    truth = folder / "groundtruth.txt"
    if not truth.is_file():
        return None
    try:
        return score_trajectory(out / "trajectory.txt", truth)[0].ate_percent
    except BadInput:  # fewer than three poses
        return None


def sequences(data: Path) -> list[Path]:
    """Folders below `data` that list images; raises `BadInput` if there are none."""
    found = sorted(path.parent for path in data.glob("*/rgb.txt"))
    if not found:
        raise BadInput(
            f"{data} holds no folder with an rgb.txt; name one that does with --data (layout of "
            f"the TUM RGB-D benchmark: rgb.txt, camera_info.yaml, groundtruth.txt, depth.txt)"
        )
    return found


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| sequence | reconstructor | frames | parts | ATE % | s/frame | of these | AbsRel | "
        "coverage | disagreement |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        stages = ", ".join(f"{n} {s:.2f}" for n, s in row.stages.items() if s >= 0.005)
        lines.append(
            f"| {row.sequence} | {row.variant} | {row.registered}/{row.frames} | {row.parts} | "
            f"{_number(row.ate_percent, 3)} | {row.seconds:.2f} | {stages} | "
            f"{_number(row.depth_error, 3)} | {_number(row.coverage, 2)} | "
            f"{_number(row.disagreement, 3)} |"
        )
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/bench/real.json"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of sequences")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--quick", action="store_true", help="the first sequence only")


def run(args: argparse.Namespace) -> None:
    folders = sequences(args.data)[: 1 if args.quick else None]
    rows = []
    for folder in folders:
        for variant in args.variants:
            rows.append(map_sequence(folder, variant))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps([asdict(row) for row in rows], indent=2))
    print(table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
