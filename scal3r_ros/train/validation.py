"""Scores on worlds of the validation seeds, beside those of the baselines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from scal3r_ros.networks.scal3r.memory import NoMemory
from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.train.objective import group_targets
from scal3r_ros.train.replay import chunks_of
from scal3r_ros.train.schedule import Schedule, Stage
from scal3r_ros.train.scores import Scores, baseline, score
from scal3r_ros.train.worlds.clips import VALIDATION_SEEDS, ClipBatch, ClipSettings, WorldSampler
from scal3r_ros.train.worlds.scenes import SCENE_KINDS
from scal3r_ros.train.worlds.tour_clips import tour_clip

SETS = {"N": ((1.0, 1.0), (1.0, 1.0)), "P": ((3.0, 3.0), (0.4, 0.4))}
"""Normal motion, and strong parallax: factors on translation and on rotation."""
TOURS, TOUR_STRIDE = "T", 4
"""The third set: every so many frames of tours, as the evaluation takes them."""


@dataclass(frozen=True)
class ValidationSet:
    """Fixed batches, one per kind of world, as lists of chunks in network order."""

    batches: tuple[list[ClipBatch], ...]

    @cached_property
    def baselines(self) -> dict[str, float]:
        """The summary for no rotation, mean motion and mean depth; the means are taken from the
        set itself, which flatters them."""
        targets = [t for chunks in self.batches for t in group_targets(chunks)]
        depth = torch.cat([t.log_depth for t in targets]).mean((0, 1))
        motion = torch.cat([t.encoding[..., :3] for t in targets]).mean(0)
        return Scores.join([baseline(t, depth, motion) for t in targets]).summary()


def validation_sets(
    stage: Stage, schedule: Schedule, device: torch.device | str = "cpu"
) -> dict[str, ValidationSet]:
    """The sets for a stage's image size and chunk length; the same at every call."""
    count = schedule.validation_clips
    if not count:
        return {}
    sampler = WorldSampler.validation(min(schedule.textures, 120), device)
    frames = torch.arange(stage.drawn_frames).expand(count, -1)
    plain = replace(stage.clips, frames=stage.drawn_frames, sub_rays=2)
    sets = {}
    for name, (parallax, turn) in SETS.items():
        settings = replace(plain, parallax=parallax, turn=turn)
        clips = [
            sampler.batch(VALIDATION_SEEDS + i, count, settings, kind)
            for i, kind in enumerate(SCENE_KINDS)
        ]
        sets[name] = ValidationSet(tuple(chunks_of(clip, frames, stage) for clip in clips))
    if stage.tours:
        clips = [_tours(sampler, kind, count, plain) for kind in SCENE_KINDS]
        sets[TOURS] = ValidationSet(tuple(chunks_of(clip, frames, stage) for clip in clips))
    return sets


def _tours(sampler: WorldSampler, kind: str, count: int, settings: ClipSettings) -> ClipBatch:
    first = VALIDATION_SEEDS + 100 * (1 + SCENE_KINDS.index(kind))
    return ClipBatch.concatenate(
        [tour_clip(first + i, sampler, settings, TOUR_STRIDE, kind) for i in range(count)]
    )


@torch.no_grad()
def validate(network: Scal3R, sets: dict[str, ValidationSet], memory: bool) -> dict[str, float]:
    """Summaries of all sets, keys prefixed by the set's name."""
    found = {}
    for name, data in sets.items():
        scores = []
        for chunks in data.batches:
            predictions = network(
                [chunk.images for chunk in chunks], memory=None if memory else NoMemory()
            )
            targets = group_targets(chunks)
            scores += [score(p.camera, p.depth, t) for p, t in zip(predictions, targets)]
        found |= {f"{name}/{k}": v for k, v in Scores.join(scores).summary().items()}
    return found


def baselines(sets: dict[str, ValidationSet]) -> dict[str, float]:
    """What has to be beaten, by the names of `validate`."""
    return {f"{name}/{k}": v for name, data in sets.items() for k, v in data.baselines.items()}
