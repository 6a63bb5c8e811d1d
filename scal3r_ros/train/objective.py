"""One training step's loss: the network on a step's chunks, with everything it is supervised by."""

from __future__ import annotations

import torch
from torch import Tensor

from scal3r_ros.networks.scal3r.memory import (
    CausalMemory,
    ContextMemory,
    NoMemory,
    RoundMemory,
)
from scal3r_ros.networks.scal3r.network import Prediction, Scal3R
from scal3r_ros.train.losses import (
    AttentionWatch,
    LossParts,
    Targets,
    make_targets,
    matching_loss,
    prediction_loss,
    scene_scale,
)
from scal3r_ros.train.parallel import Crew
from scal3r_ros.train.probe import Probes
from scal3r_ros.train.schedule import Stage
from scal3r_ros.train.worlds.clips import ClipBatch, Correspondences, correspondences


def group_targets(chunks: list[ClipBatch]) -> list[Targets]:
    """Targets of chunks of the same worlds in the unit of the first: the others can be right only
    through what the memory, or frames that they share, tell them."""
    scale = scene_scale(chunks[0])
    return [make_targets(chunk, scale) for chunk in chunks]


def own_targets(chunks: list[ClipBatch]) -> list[Targets]:
    """Targets of every chunk in its own unit: all that a network without memory can know."""
    return [make_targets(chunk, scene_scale(chunk)) for chunk in chunks]


def step_loss(
    network: Scal3R,
    chunks: list[ClipBatch],
    stage: Stage,
    layers: tuple[int, ...],
    probes: Probes,
    crew: Crew | None = None,
    resting: bool = False,
) -> LossParts:
    """Loss of chunks (of the same worlds, network order) that share one memory, and its parts.

    In a stage with memory and several processes, this process takes its share of the chunks.
    resting: the memory is left out of this step, and every chunk has its own unit.
    """
    crew = crew or Crew()
    alone = resting or not stage.memory
    targets = own_targets(chunks) if alone else group_targets(chunks)
    if stage.shares_worlds and crew.size > 1:
        if len(chunks) < crew.size:
            raise ValueError(
                f"stage {stage.name} has {len(chunks)} chunks per world for {crew.size} processes; "
                f"give it at least one for each"
            )
        chunks, targets = crew.own(chunks), crew.own(targets)
    watch = AttentionWatch(layers)
    predictions = network(
        [chunk.images for chunk in chunks],
        points=network.architecture.points_head,
        memory=NoMemory() if resting else _memory(network, stage, len(chunks), crew),
        observe=watch,
    )
    total, parts = _geometry(predictions, targets, stage)
    truths = [correspondences(chunk, network.architecture.patch_size) for chunk in chunks]
    grid = network.grid(chunks[0].images)
    asked = _asked(grid[0] * grid[1], stage.asked, chunks[0].depth.device)
    special = network.architecture.special_tokens
    match, match_parts = _matching(watch, truths, grid, special, asked)
    carried = probes.loss(truths, targets, grid)
    total = total + stage.weights.matching * (match + sum(carried.values()))
    parts |= {name: value.detach() for name, value in carried.items()}
    return LossParts(total, parts | match_parts)


def _memory(network: Scal3R, stage: Stage, chunks: int, crew: Crew) -> RoundMemory:
    if not stage.memory:
        return NoMemory()
    if stage.causal:
        return CausalMemory(network.numerics.newton_schulz)
    return ContextMemory(network.numerics.newton_schulz, sync=crew.sync).round(
        chunks, checked=False
    )


def _geometry(
    predictions: list[Prediction], targets: list[Targets], stage: Stage
) -> tuple[Tensor, dict[str, Tensor]]:
    losses = [prediction_loss(p, t, stage.weights) for p, t in zip(predictions, targets)]
    total = torch.stack([loss.total for loss in losses]).mean()
    names = losses[0].parts
    return total, {n: torch.stack([loss.parts[n] for loss in losses]).mean() for n in names}


def _asked(patches: int, share: float, device: torch.device) -> Tensor | None:
    """Random patches, None for all."""
    if share >= 1:
        return None
    return torch.randperm(patches)[: max(1, round(share * patches))].to(device)


def _matching(
    watch: AttentionWatch,
    truths: list[Correspondences],
    grid: tuple[int, int],
    special: int,
    asked: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over layers and chunks; the errors are those of the last supervised layer."""
    found = {
        layer: [
            matching_loss(q, k, truth, grid, special, asked) for (q, k), truth in zip(pairs, truths)
        ]
        for layer, pairs in watch.seen.items()
    }
    losses = [match.loss for matches in found.values() for match in matches]
    last = found[max(found)]
    return torch.stack(losses).mean(), {
        "match_error": torch.stack([m.error for m in last]).mean(),
        "match_same": torch.stack([m.same_place for m in last]).mean(),
    }
