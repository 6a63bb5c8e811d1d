"""The training loop: stages by the clock, resumable at any second, with a gate against plateaus."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import torch
from torch import Tensor

from scal3r_ros.model.architecture import Architecture, Numerics
from scal3r_ros.model.network import Scal3R
from scal3r_ros.train.losses import LossParts
from scal3r_ros.train.objective import step_loss
from scal3r_ros.train.probe import DisplacementProbe, write_place_code
from scal3r_ros.train.replay import ClipReplay
from scal3r_ros.train.run_state import FILE as RUN_FILE
from scal3r_ros.train.run_state import AveragedWeights, Progress, read_run, resume_run, save_run
from scal3r_ros.train.schedule import Schedule, Stage
from scal3r_ros.train.validation import validate, validate_baselines, validation_sets
from scal3r_ros.train.worlds import TRAIN_SEEDS, WorldSampler

log = logging.getLogger(__name__)

SAVE_EVERY = 120.0
"""Seconds between checkpoints."""
VALIDATE_EVERY = 240.0
_SEEDS_PER_STAGE = 100_000_000
_MEAN_FOV = (0.95, 1.2)


class Plateau(RuntimeError):
    """Matches are still no better than staying in place; the run is not worth its time."""


class Trainer:
    """A run in `folder`; continues the one it finds there."""

    def __init__(
        self,
        architecture: Architecture,
        schedule: Schedule,
        folder: Path,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        self.schedule, self.folder, self.device = schedule, Path(folder), torch.device(device)
        torch.manual_seed(seed)
        numerics = Numerics(
            blocks=schedule.precision, token_slice=None, head_batch=10**6, encoder_batch=10**6
        )
        self.network = Scal3R(architecture, numerics).to(self.device)
        _start_at_the_mean(self.network)
        self.probe = DisplacementProbe(self.network, schedule.matching_layers[-1]).to(self.device)
        self.average = AveragedWeights(self.network, schedule.ema)
        self.optimizer = _optimizer(self.network, self.probe, schedule)
        self.progress = Progress(seed=seed)
        if (self.folder / RUN_FILE).exists():
            content = read_run(self.folder, self.device)
            self.progress = resume_run(
                content, self.network, self.probe, self.average, self.optimizer
            )
            log.info("going on after %.1f minutes", self.progress.minutes)
        self.sampler = WorldSampler.training(device=self.device)

    def run(self, minutes: float = float("inf")) -> Progress:
        """Train until the schedule ends or `minutes` of this call have passed, and save."""
        deadline = time.monotonic() + 60 * minutes
        while time.monotonic() < deadline:
            stage = self.schedule.stage_at(self.progress.minutes)
            if stage is None:
                break
            self._run_stage(stage, deadline)
        self.save()
        return self.progress

    def save(self) -> None:
        """Write the run file."""
        save_run(
            self.folder,
            self.network.architecture,
            self.network,
            self.probe,
            self.average,
            self.optimizer,
            self.progress,
        )

    def _run_stage(self, stage: Stage, deadline: float) -> None:
        log.info("stage %s", stage.name)
        number = self.schedule.stages.index(stage)
        first = TRAIN_SEEDS + 1 + number * _SEEDS_PER_STAGE // 10 + self.progress.steps * 10
        replay = ClipReplay(self.sampler, stage, self.schedule.replay, first)
        sets = validation_sets(stage, self.device)
        log.info("baselines %s", _line(validate_baselines(sets)))
        saved = validated = time.monotonic()
        while self.schedule.stage_at(self.progress.minutes) is stage:
            start = time.monotonic()
            parts = self.step(stage, replay)
            self.progress.minutes += (time.monotonic() - start) / 60
            now = time.monotonic()
            if now - validated > VALIDATE_EVERY or self.progress.steps == 1:
                self._validate(stage, sets, parts)
                validated = time.monotonic()
            if now - saved > SAVE_EVERY:
                self.save()
                saved = now
            if now > deadline:
                return
        self._validate(stage, sets, parts)

    def step(self, stage: Stage, replay: ClipReplay) -> LossParts:
        """One update of the weights."""
        chunks = replay.draw()
        rate = self.schedule.rate(self.progress.minutes, self.progress.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        loss = step_loss(self.network, chunks, stage, self.schedule.matching_layers, self.probe)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(parameters, self.schedule.clip)
        self.optimizer.step()
        self.progress.steps += 1
        self.progress.samples += len(chunks[0].images) * len(chunks)
        self.average.update(self.network, self.progress.steps)
        if self.progress.steps % 100 == 0:
            self._report(stage, loss)
        return loss

    def _report(self, stage: Stage, loss: LossParts) -> None:
        left = self.schedule.minutes - self.progress.minutes
        values = {name: float(value) for name, value in loss.parts.items()}
        log.info(
            "%s step %d, %d samples, %.1f min, %.0f left, loss %.3f %s",
            stage.name,
            self.progress.steps,
            self.progress.samples,
            self.progress.minutes,
            left,
            float(loss.total),
            _line(values),
        )

    def _validate(self, stage: Stage, sets, loss: LossParts) -> None:
        present = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.values)
        scores = validate(self.network, sets, stage.memory)
        self.network.load_state_dict(present)
        row = {
            "stage": stage.name,
            "minutes": self.progress.minutes,
            "samples": self.progress.samples,
        }
        row |= {name: float(value) for name, value in loss.parts.items()} | scores
        self.progress.history.append(row)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        log.info("validation %s", _line(scores))
        self._gate(row)

    def _gate(self, row: dict) -> None:
        late = self.progress.minutes > self.schedule.gate_minutes
        if late and row["match_error"] > self.schedule.gate_ratio * row["match_same"]:
            self.save()
            raise Plateau(
                f"after {self.progress.minutes:.1f} minutes the match error is "
                f"{row['match_error']:.2f} patches and staying in place gives "
                f"{row['match_same']:.2f}; wanted at most {self.schedule.gate_ratio} of it. Check "
                f"the matching loss and the parallax of the worlds before spending more time"
            )


def _start_at_the_mean(network: Scal3R) -> None:
    """Begin with the mean camera for every frame, unit depth, and memory units that say nothing."""
    last = network.cam_decoder.pose_branch.fc2
    write_place_code(network)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[6] = 1.0 / network.cam_decoder.iterations
        share = torch.tensor(_MEAN_FOV) / network.cam_decoder.iterations
        last.bias[7:] = share.to(last.bias)
        for layer in network.architecture.ttt_layers:
            network.agg_regator.memory_unit(layer).proj.bias.zero_()


def _optimizer(network: Scal3R, probe: DisplacementProbe, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices, and an own rate for the memory units."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        key = (".ttt." in name, parameter.ndim >= 2 and "token" not in name and "pos_" not in name)
        groups.setdefault(key, []).append(parameter)
    groups[(False, False)] += probe.parameters()
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": schedule.memory_rate if memory else schedule.learning_rate,
                "weight_decay": schedule.weight_decay if matrix else 0.0,
            }
            for (memory, matrix), parameters in groups.items()
        ],
        lr=schedule.learning_rate,
        betas=schedule.betas,
        fused=True,
    )


def _line(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in values.items() if "mean" not in name)
