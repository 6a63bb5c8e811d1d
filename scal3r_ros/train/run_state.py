"""What a run needs to go on where it stopped: weights, averages, optimiser, counts, in one file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from scal3r_ros.files import atomic_file

if TYPE_CHECKING:
    from scal3r_ros.train.learner import Learner

FILE = "run.pt"


@dataclass
class RunProgress:
    """Counts of a run over all its sessions. history: one row of scores per validation."""

    minutes: float = 0.0
    steps: int = 0
    samples: int = 0
    seed: int = 0
    history: list[dict[str, float | str]] = field(default_factory=list)


def save_run(folder: Path, learner: Learner, progress: RunProgress) -> None:
    """Write everything atomically: a crash leaves the previous file."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "architecture": learner.network.architecture.to_json(),
        "network": learner.network.state_dict(),
        "probes": learner.probes.state_dict(),
        "average": learner.average.values,
        "optimizers": [optimizer.state_dict() for optimizer in learner.optimizers],
        "progress": asdict(progress),
    }
    with atomic_file(folder / FILE) as file:
        torch.save(content, file)


def read_run(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The content of a run file."""
    return torch.load(folder / FILE, map_location=device, weights_only=True)


def resume_run(content: dict[str, Any], learner: Learner) -> RunProgress:
    """Put a run file's content back; raises `RuntimeError` if it belongs to another network."""
    learner.network.load_state_dict(content["network"])
    learner.probes.load_state_dict(content["probes"])
    learner.average.values = content["average"]
    for optimizer, state in zip(learner.optimizers, content["optimizers"]):
        optimizer.load_state_dict(state)
    return RunProgress(**content["progress"])
