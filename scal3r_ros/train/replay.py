"""A buffer of rendered clips, drawn several times each with other frames, mirror and reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from scal3r_ros.train.clip_cache import ClipCache
from scal3r_ros.train.schedule import Stage
from scal3r_ros.train.worlds.clips import ClipBatch, WorldSampler, reference_first
from scal3r_ros.train.worlds.tour_clips import tour_clip

_RENDERED_AT_LEAST = 16
_TOUR_SEEDS = 250_000_000
"""Offset of the seeds of tours, far from those of short clips."""
_TOUR_STEP = 2
"""Frames of a tour are rendered at this stride, and drawn at up to _WIDEST times it."""
_WIDEST = 2
_WIDEST_CACHED = 2
"""Cached frames are drawn at up to so many times the stride they were rendered with."""


class ClipReplay:
    """Worlds for one stage, short clips and parts of tours. Every draw mixes kinds of worlds and
    makes chunks in network order."""

    def __init__(self, sampler: WorldSampler, stage: Stage, capacity: int, seed: int):
        self.stage = stage
        self.generator = torch.Generator().manual_seed(seed)
        self.clips = _Shelf(sampler, stage, capacity, seed, tours=False)
        self.tours = _Shelf(sampler, stage, capacity, seed + _TOUR_SEEDS, tours=True)

    def draw(self) -> list[ClipBatch]:
        """One step's data: as many chunks per world as the stage says, reference frame first."""
        wanted = torch.rand(self.stage.batch, generator=self.generator) < self.stage.tours
        picked = []
        for shelf, count in ((self.tours, int(wanted.sum())), (self.clips, int((~wanted).sum()))):
            shelf.render_what_is_due(count)
            picked += [shelf.pick(self.generator) for _ in range(count)]
        merged = ClipBatch.concatenate(picked)
        if _integer(2, self.generator):
            merged = merged.mirrored()
        order = torch.arange(self.stage.drawn_frames).expand(len(picked), -1)
        return chunks_of(merged, order, self.stage)


class CachedReplay:
    """Parts of tours for one stage, from a folder of rendered worlds."""

    def __init__(self, folder: Path, stage: Stage, seed: int):
        self.stage = stage
        self.cache = ClipCache(folder)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> list[ClipBatch]:
        """One step's data, as `ClipReplay.draw`."""
        size = self.stage.clips.size
        drawn = [
            self.cache.draw(self._spaced, size, self.generator) for _ in range(self.stage.batch)
        ]
        merged = ClipBatch.concatenate(drawn)
        if _integer(2, self.generator):
            merged = merged.mirrored()
        order = torch.arange(self.stage.drawn_frames).expand(len(drawn), -1)
        return chunks_of(merged, order, self.stage)

    def _spaced(self, total: int, generator: torch.Generator) -> Tensor:
        """Frames at an even distance; the more, the nearer to each other."""
        wanted = self.stage.drawn_frames
        if total < wanted:
            raise ValueError(
                f"stage {self.stage.name} draws {wanted} frames, the cached worlds have {total}"
            )
        widest = min(_WIDEST_CACHED, (total - 1) // (wanted - 1))
        stride = 1 + _integer(widest, generator)
        first = _integer(total - stride * (wanted - 1), generator)
        return first + stride * torch.arange(wanted)


class _Shelf:
    """Rendered batches of one sort, the oldest of which make room for new ones."""

    def __init__(self, sampler: WorldSampler, stage: Stage, capacity: int, seed: int, tours: bool):
        self.sampler, self.stage, self.seed, self.are_tours = sampler, stage, seed, tours
        self.at_once = max(_RENDERED_AT_LEAST, stage.batch // 2)
        self.capacity = max(capacity // self.at_once, 1)
        self.rendered: list[ClipBatch] = []
        self.credit = 0.0

    def render_what_is_due(self, worlds: int) -> None:
        """Render so that each world is drawn as often as the stage says."""
        self.credit += worlds / self.stage.uses
        while worlds and (self.credit >= self.at_once or len(self.rendered) < self._first()):
            self.credit = max(0.0, self.credit - self.at_once)
            self.rendered.append(self._tours() if self.are_tours else self._clips())
            self.seed += self.at_once if self.are_tours else 1
            del self.rendered[: -self.capacity]

    def pick(self, generator: torch.Generator) -> ClipBatch:
        """One world with as many frames as a draw needs, in the order of time."""
        batch = self.rendered[_integer(len(self.rendered), generator)]
        row = _integer(self.at_once, generator)
        total = batch.images.shape[1]
        frames = self._spaced(total, generator) if self.are_tours else self._any(total, generator)
        return batch.clips(slice(row, row + 1)).frames(frames.to(batch.images.device))

    def _first(self) -> int:
        return min(2 if self.are_tours else 4, self.capacity)

    def _clips(self) -> ClipBatch:
        frames = self.stage.drawn_frames + self.stage.spare_frames
        settings = replace(self.stage.clips, frames=frames)
        return self.sampler.batch(self.seed, self.at_once, settings)

    def _tours(self) -> ClipBatch:
        settings = replace(self.stage.clips, frames=_WIDEST * (self.stage.drawn_frames - 1) + 1)
        seeds = range(self.seed, self.seed + self.at_once)
        return ClipBatch.concatenate(
            [tour_clip(seed, self.sampler, settings, _TOUR_STEP) for seed in seeds]
        )

    def _any(self, total: int, generator: torch.Generator) -> Tensor:
        """Some of the frames."""
        order = torch.rand(total, generator=generator).argsort()
        return order[: self.stage.drawn_frames].sort().values

    def _spaced(self, total: int, generator: torch.Generator) -> Tensor:
        """Frames at an even distance, as a camera that is mapped gives them."""
        wanted = self.stage.drawn_frames
        stride = 1 + _integer(_WIDEST, generator)
        first = _integer(total - stride * (wanted - 1), generator)
        return first + stride * torch.arange(wanted)


def _integer(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))


def chunks_of(clips: ClipBatch, frames: Tensor, stage: Stage) -> list[ClipBatch]:
    """Overlapping chunks of chosen frames (W, F), each with its middle frame first."""
    size, step = stage.clips.frames, stage.clips.frames - stage.overlap
    order = reference_first(size)
    starts = range(0, step * stage.chunks, step)
    device = clips.images.device
    return [clips.frames(frames[:, start : start + size][:, order].to(device)) for start in starts]
