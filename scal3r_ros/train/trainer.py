"""The training loop: stages by the clock, resumable at any second, with a gate against plateaus."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from scal3r_ros.networks.dinov2 import ImageEncoder
from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.train.learner import make_learner
from scal3r_ros.train.losses import LossParts
from scal3r_ros.train.objective import step_loss
from scal3r_ros.train.parallel import Crew
from scal3r_ros.train.replay import CachedReplay, ClipReplay
from scal3r_ros.train.run_state import FILE as RUN_FILE
from scal3r_ros.train.run_state import RunProgress, read_run, resume_run, save_run
from scal3r_ros.train.schedule import Schedule, Stage
from scal3r_ros.train.scoreboard import Scoreboard, line
from scal3r_ros.train.validation import (
    ValidationSet,
    baselines,
    validate,
    validation_sets,
)
from scal3r_ros.train.worlds.clips import TRAIN_SEEDS, WorldSampler

log = logging.getLogger(__name__)

SAVE_EVERY = 120.0
"""Seconds between checkpoints."""
VALIDATE_EVERY = 240.0
_REPORT_STEPS = 50
_SEEDS_PER_RANK = 20_000_000
_SEEDS_PER_RUN, _SEEDS_PER_STEP = 4_000_000, 64


class Plateau(RuntimeError):
    """Matches are still no better than staying in place; the run is not worth its time."""


def _fuse(network: Scal3R) -> None:
    """Compile the blocks that nothing watches."""
    encoder = network.agg_regator.patch_embed
    own = encoder.blocks if isinstance(encoder, ImageEncoder) else ()
    for block in (*own, *network.agg_regator.frame_blocks):
        block.compile(dynamic=False)


class Trainer:
    """A run in `folder`; goes on with the one it finds there."""

    def __init__(
        self,
        architecture: Architecture,
        schedule: Schedule,
        folder: Path,
        device: torch.device | str = "cpu",
        seed: int = 0,
        crew: Crew | None = None,
        start: str = "",
        parts: str = "all",
        fused: bool = False,
        cache: Path | None = None,
    ):
        self.schedule, self.folder, self.device = schedule, Path(folder), torch.device(device)
        self.crew, self.parts, self.cache = crew or Crew(), parts, cache
        torch.manual_seed(seed)
        self.learner = make_learner(architecture, schedule, self.device, start)
        self.learner.choose(parts)
        self.progress = RunProgress(seed=seed)
        if (self.folder / RUN_FILE).exists():
            content = read_run(self.folder, self.device)
            self.progress = resume_run(content, self.learner)
            log.info("going on after %.1f minutes", self.progress.minutes)
        self.board = Scoreboard(self.folder) if self.crew.leads else None
        self.sampler = WorldSampler.training(schedule.textures, self.device)
        if fused:
            _fuse(self.learner.network)

    def run(self, minutes: float = float("inf")) -> RunProgress:
        """Train until the schedule ends or `minutes` of this call have passed, and save."""
        deadline = time.monotonic() + 60 * minutes
        while self.crew.agree(time.monotonic()) < self.crew.agree(deadline):
            stage = self.schedule.stage_at(self.progress.minutes)
            if stage is None:
                break
            self._run_stage(stage, deadline)
        self.save()
        return self.progress

    def save(self) -> None:
        """Write the run file."""
        if self.crew.leads:
            save_run(self.folder, self.learner, self.progress)

    def _run_stage(self, stage: Stage, deadline: float) -> None:
        self.learner.choose(self.parts if stage.changes == "all" else stage.changes)
        replay = self._replay(stage)
        sets = validation_sets(stage, self.schedule, self.device) if self.crew.leads else {}
        log.info("stage %s", stage.name)
        saved = validated = time.monotonic()
        while self.schedule.stage_at(self.progress.minutes) is stage:
            start = time.monotonic()
            loss = self.step(stage, replay)
            now = time.monotonic()
            self._count(self.crew.agree(now - start) / 60, stage)
            if now - validated > VALIDATE_EVERY:
                self._validate(stage, sets, loss)
                validated = time.monotonic()
            if now - saved > SAVE_EVERY:
                self.save()
                saved = now
            if self.crew.agree(now) > self.crew.agree(deadline):
                return
        self._validate(stage, sets, loss)

    def _replay(self, stage: Stage) -> ClipReplay | CachedReplay:
        seed = self._first_seed(stage)
        if self.cache is not None:
            return CachedReplay(self.cache, stage, seed)
        return ClipReplay(self.sampler, stage, self.schedule.replay, seed)

    def _count(self, minutes: float, stage: Stage) -> None:
        """Add a step's time, of a stage at most to its end: a slow step skips no stage."""
        end = self.schedule.end_of(stage)
        self.progress.minutes = min(self.progress.minutes + minutes, end)

    def _first_seed(self, stage: Stage) -> int:
        """Seeds that no earlier session of this run used; with a shared memory, all processes see
        the same worlds."""
        own = 0 if stage.shares_worlds else self.crew.rank
        progress = self.progress
        used = progress.seed * _SEEDS_PER_RUN + progress.steps * _SEEDS_PER_STEP
        return TRAIN_SEEDS + 1 + own * _SEEDS_PER_RANK + used

    def step(self, stage: Stage, replay: ClipReplay | CachedReplay) -> LossParts:
        """One update of the weights."""
        chunks = replay.draw()
        learner, progress = self.learner, self.progress
        rate = self.schedule.rate(progress.minutes, progress.steps)
        learner.set_rate(rate)
        layers = self.schedule.matching_layers
        resting = progress.steps % stage.memory_every > 0
        loss = step_loss(learner.network, chunks, stage, layers, learner.probes, self.crew, resting)
        learner.forget_gradients()
        loss.total.backward()
        everything = [*learner.trained, *learner.probes.parameters()]
        self.crew.average(everything)
        torch.nn.utils.clip_grad_norm_(
            [p for p in everything if p.grad is not None], self.schedule.clip
        )
        learner.step()
        progress.steps += 1
        alone = stage.shares_worlds
        progress.samples += stage.batch * stage.chunks * (1 if alone else self.crew.size)
        learner.average.update(learner.network, progress.steps)
        if progress.steps % _REPORT_STEPS == 0 and self.crew.leads:
            self._report(stage, loss)
        return loss

    def _report(self, stage: Stage, loss: LossParts) -> None:
        progress = self.progress
        log.info(
            "%s step %d, %d samples, %.1f min, %.0f left, loss %.3f %s",
            stage.name,
            progress.steps,
            progress.samples,
            progress.minutes,
            self.schedule.minutes - progress.minutes,
            float(loss.total.detach()),
            line({name: float(value) for name, value in loss.parts.items()}),
        )

    def _validate(self, stage: Stage, sets: dict[str, ValidationSet], loss: LossParts) -> None:
        if not self.crew.leads:
            return
        with self.learner.averaged():
            scores = validate(self.learner.network, sets, stage.memory)
        row = {
            "stage": stage.name,
            "minutes": self.progress.minutes,
            "samples": float(self.progress.samples),
        }
        blind = baselines(sets)
        row |= {name: float(value) for name, value in loss.parts.items()} | scores
        row |= {f"blind/{name}": value for name, value in blind.items()}
        self.progress.history.append(row)
        self.board.add(row, self.progress.samples)
        log.info("validation (baseline): %s", line(scores, blind))
        self._gate(row)

    def _gate(self, row: dict[str, float | str]) -> None:
        late = self.progress.minutes > self.schedule.gate_minutes
        if late and row["match_error"] > self.schedule.gate_ratio * row["match_same"]:
            self.save()
            raise Plateau(
                f"after {self.progress.minutes:.1f} minutes the match error is "
                f"{row['match_error']:.2f} patches and staying in place gives "
                f"{row['match_same']:.2f}; wanted at most {self.schedule.gate_ratio} of it. Check "
                f"the matching loss and the parallax of the worlds before spending more time"
            )
