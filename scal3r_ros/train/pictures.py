"""Pictures for the documentation: a sheet of worlds, and the learning curves of a run.

python -m scal3r_ros.train.pictures sheet docs/images/worlds.jpg
python -m scal3r_ros.train.pictures curves RUN_FOLDER docs/images/training.png
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scal3r_ros.train.scoreboard import LOG_FILE
from scal3r_ros.train.worlds.clips import ClipSettings, WorldSampler
from scal3r_ros.train.worlds.scenes import SCENE_KINDS

_SCORES = {
    "rotation": "pair rotation error, deg",
    "direction": "translation direction, deg",
    "abs_rel": "depth AbsRel",
}
_SETS = {"N": "normal motion", "P": "strong parallax", "T": "tours"}


def draw_sheet(path: Path, clips: int = 2, size: tuple[int, int] = (126, 168)) -> dict[str, float]:
    """Clips of every kind of world with their depth below; returns frames rendered per second."""
    sampler = WorldSampler.training()
    rows, speeds = [], {}
    for i, kind in enumerate(SCENE_KINDS):
        start = time.monotonic()
        batch = sampler.batch(40 + i, clips, ClipSettings(size=size, frames=4), kind)
        speeds[kind] = 4 * clips / (time.monotonic() - start)
        rows.append(_row(batch.images.permute(0, 1, 3, 4, 2)))
        rows.append(_row(_depth_colours(batch.depth, batch.solid)))
    sheet = torch.cat(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((sheet.numpy() * 255).astype(np.uint8)).save(path, quality=85)
    return speeds


def _row(images: torch.Tensor) -> torch.Tensor:
    """(W, S, H, W', 3) side by side."""
    return torch.cat(list(images.flatten(0, 1)), 1)


def _depth_colours(depth: torch.Tensor, solid: torch.Tensor) -> torch.Tensor:
    """Inverse depth in grey relative to each clip's median, sky blue."""
    middle = depth.flatten(1).median(1).values[:, None, None, None]
    grey = (0.5 * middle / depth.clamp(min=1e-3)).clamp(0, 1)[..., None].expand(*depth.shape, 3)
    sky = torch.tensor([0.25, 0.35, 0.6])
    return torch.where(solid[..., None], grey, sky)


def draw_curves(run: Path, path: Path) -> None:
    """Validation scores over samples: rotation, direction, depth, and the match error; dotted the
    answers that know nothing. Lines mark new stages, each of which has its own image size, chunk
    length and validation sets."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = [json.loads(line) for line in (run / LOG_FILE).read_text().splitlines()]
    samples = np.array([row["samples"] for row in rows]) / 1000
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.2), constrained_layout=True)
    for axis, (name, label) in zip(axes, _SCORES.items()):
        for colour, (kind, text) in zip(("C0", "C1", "C2"), _SETS.items()):
            if not any(f"{kind}/{name}" in row for row in rows):
                continue
            for prefix, style in (("", "-"), ("blind/", ":")):
                key = f"{prefix}{kind}/{name}"
                values = [row.get(key, float("nan")) for row in rows]
                axis.plot(samples, values, style, color=colour, label="" if prefix else text)
        axis.set(xlabel="thousand chunks", title=label, ylim=(0, None))
        axis.legend(fontsize=7)
    axes[3].plot(samples, [row["match_error"] for row in rows], label="attention")
    axes[3].plot(samples, [row["match_same"] for row in rows], ":", label="same place")
    axes[3].set(xlabel="thousand chunks", title="match error, patches", ylim=(0, None))
    axes[3].legend(fontsize=7)
    for axis in axes:
        for before, after in zip(rows, rows[1:]):
            if before["stage"] != after["stage"]:
                axis.axvline((before["samples"] + after["samples"]) / 2000, color="grey", lw=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sheet = commands.add_parser("sheet")
    sheet.add_argument("path", type=Path)
    curves = commands.add_parser("curves")
    curves.add_argument("run", type=Path)
    curves.add_argument("path", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "sheet":
        for kind, speed in draw_sheet(arguments.path).items():
            print(f"{kind}: {speed:.0f} frames/s")
    else:
        draw_curves(arguments.run, arguments.path)


if __name__ == "__main__":
    main()
