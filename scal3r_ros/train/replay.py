"""A buffer of rendered clips, drawn several times each with other frames, mirror and reference."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scal3r_ros.train.schedule import Stage
from scal3r_ros.train.worlds import ClipBatch, ClipSettings, WorldSampler, reference_first

_RENDERED_AT_LEAST = 16


class ClipReplay:
    """Clips for one stage. Every draw mixes kinds of worlds and makes chunks in network order."""

    def __init__(self, sampler: WorldSampler, stage: Stage, capacity: int, seed: int):
        self.sampler, self.stage, self.seed = sampler, stage, seed
        self.at_once = max(_RENDERED_AT_LEAST, stage.batch // 2)
        self.capacity = max(capacity // self.at_once, 1)
        self.rendered: list[ClipBatch] = []
        self.credit = 0.0
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> list[ClipBatch]:
        """One step's data: as many chunks per world as the stage says, reference frame first."""
        self._render_what_is_due()
        merged = self._pick_clips()
        if self._integer(2):
            merged = merged.mirrored()
        return chunks_of(merged, self._frames(merged), self.stage)

    def _render_what_is_due(self) -> None:
        self.credit += self.stage.batch / self.stage.uses
        while self.credit >= self.at_once or len(self.rendered) < min(4, self.capacity):
            self.credit = max(0.0, self.credit - self.at_once)
            settings = _with_frames(self.stage)
            clip = self.sampler.batch(self.seed, self.at_once, settings)
            self.seed += 1
            self.rendered.append(clip)
            if len(self.rendered) > self.capacity:
                self.rendered.pop(0)

    def _pick_clips(self) -> ClipBatch:
        picked = []
        for _ in range(self.stage.batch):
            batch = self.rendered[self._integer(len(self.rendered))]
            row = self._integer(self.at_once)
            picked.append(batch.clips(slice(row, row + 1)))
        return ClipBatch.concatenate(picked)

    def _frames(self, clips: ClipBatch) -> Tensor:
        """Random frames of every clip in the order of time, (W, F)."""
        total = clips.images.shape[1]
        keep = total - self.stage.spare_frames
        order = torch.rand(len(clips.images), total, generator=self.generator).argsort(1)
        return order[:, :keep].sort(1).values

    def _integer(self, bound: int) -> int:
        return int(torch.randint(bound, (), generator=self.generator))


def chunks_of(clips: ClipBatch, frames: Tensor, stage: Stage) -> list[ClipBatch]:
    """Overlapping chunks of chosen frames (W, F), each with its middle frame first."""
    size, step = stage.clips.frames, stage.clips.frames - stage.overlap
    order = reference_first(size)
    starts = range(0, step * stage.chunks, step)
    device = clips.images.device
    return [clips.frames(frames[:, start : start + size][:, order].to(device)) for start in starts]


def _with_frames(stage: Stage) -> ClipSettings:
    return replace(stage.clips, frames=stage.clip_frames)
