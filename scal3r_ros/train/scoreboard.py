"""Where a run's numbers go: a line of JSON per validation, TensorBoard if it is installed, the
log."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"


class Scoreboard:
    """Appends to the folder of a run."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.board = _tensorboard(folder)

    def add(self, row: Mapping[str, float | str], samples: int) -> None:
        """Record one validation."""
        with (self.folder / LOG_FILE).open("a") as file:
            file.write(json.dumps(dict(row)) + "\n")
        if self.board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self.board.add_scalar(name, value, samples)
            self.board.flush()


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("tensorboard is not installed; scores go to %s only", folder / LOG_FILE)
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def line(values: Mapping[str, float], blind: Mapping[str, float] | None = None) -> str:
    """Values for the log, each with that of the baselines if they are given; without the means
    that have a median beside them."""
    beside = {} if blind is None else {name: f" ({value:.3f})" for name, value in blind.items()}
    return " ".join(
        f"{name} {value:.3f}{beside.get(name, '')}"
        for name, value in values.items()
        if "mean" not in name
    )
