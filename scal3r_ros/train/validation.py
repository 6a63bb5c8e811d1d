"""Scores on worlds of the validation seeds, beside those of the baselines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from scal3r_ros.model.memory import NoMemory
from scal3r_ros.model.network import Scal3R
from scal3r_ros.train.objective import group_targets
from scal3r_ros.train.replay import chunks_of
from scal3r_ros.train.schedule import Schedule, Stage
from scal3r_ros.train.scores import Scores, baseline, score
from scal3r_ros.train.worlds import KINDS, VALIDATION_SEEDS, ClipBatch, WorldSampler

SETS = {"N": ((1.0, 1.0), (1.0, 1.0)), "P": ((3.0, 3.0), (0.4, 0.4))}
"""Normal motion, and strong parallax: factors on translation and on rotation."""


@dataclass(frozen=True)
class ValidationSet:
    """Fixed batches, one per kind of world, as lists of chunks in network order."""

    batches: tuple[list[ClipBatch], ...]


def validation_sets(
    stage: Stage, schedule: Schedule, device: torch.device | str = "cpu"
) -> dict[str, ValidationSet]:
    """The sets for a stage's image size and chunk length; the same at every call."""
    count = schedule.validation_clips
    sampler = WorldSampler.validation(min(schedule.textures, 120), device)
    sets = {}
    for name, (parallax, turn) in SETS.items():
        plain = replace(stage, spare_frames=0)
        settings = replace(
            stage.clips, frames=plain.clip_frames, parallax=parallax, turn=turn, sub_rays=2
        )
        batches = []
        for i, kind in enumerate(KINDS):
            clips = sampler.batch(VALIDATION_SEEDS + i, count, settings, kind)
            frames = torch.arange(plain.clip_frames).expand(count, -1)
            batches.append(chunks_of(clips, frames, plain))
        sets[name] = ValidationSet(tuple(batches))
    return sets


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


@torch.no_grad()
def validate_baselines(sets: dict[str, ValidationSet]) -> dict[str, float]:
    """The same summaries for no rotation, mean motion and mean depth; the means are taken from the
    sets themselves, which flatters them."""
    found = {}
    for name, data in sets.items():
        targets = [t for chunks in data.batches for t in group_targets(chunks)]
        depth = torch.cat([t.log_depth for t in targets]).mean((0, 1))
        motion = torch.cat([t.encoding[..., :3] for t in targets]).mean(0)
        scores = Scores.join([baseline(t, depth, motion) for t in targets])
        found |= {f"{name}/{k}": v for k, v in scores.summary().items()}
    return found
