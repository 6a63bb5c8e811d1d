"""Training schedules: stages, their data and weights, and the learning rate over them.

Stages are measured in minutes, not steps: a run that gets an accelerator for a fixed time uses all
of it whatever the speed, and the learning rate ends where it should.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from scal3r_ros.networks.scal3r.architecture import Architecture, preset
from scal3r_ros.train.losses import LossWeights
from scal3r_ros.train.worlds.clips import ClipSettings


@dataclass(frozen=True)
class Stage:
    """One part of a run.

    minutes: of training time. batch: worlds per step. chunks: per world, sharing one memory.
    clips.frames: frames per chunk. overlap: frames shared by neighbouring chunks. memory: whether
    the memory units run; memory_every: in every so many-th step, so that the network stays good
    without them. causal: chunks read what those before them wrote, as in a stream, instead of what
    all of them wrote. changes: which of the learner's parts change; where it is the `memory`,
    the network without memory stays as it was. tours: share of the worlds that are parts of long
    round tours. spare_frames: frames rendered beyond those the chunks of a clip use. uses: how
    often a rendered clip is drawn, each time with other frames. asked: share of the patches whose
    matches are supervised in one step, drawn at random; the cost grows with patches times frames
    squared. rate: learning rate at the start and at the end, as shares of the peak, with half a
    cosine between them.
    """

    name: str
    minutes: float
    batch: int
    clips: ClipSettings
    weights: LossWeights = field(default_factory=LossWeights)
    chunks: int = 1
    overlap: int = 2
    memory: bool = False
    memory_every: int = 1
    causal: bool = False
    changes: str = "all"
    tours: float = 0.0
    spare_frames: int = 2
    uses: float = 4.0
    asked: float = 1.0
    rate: tuple[float, float] = (1.0, 1.0)

    @property
    def shares_worlds(self) -> bool:
        """Whether several processes take turns with the chunks of the same worlds."""
        return self.memory and not self.causal

    @property
    def drawn_frames(self) -> int:
        """Frames that the chunks of one world span."""
        return self.clips.frames + (self.chunks - 1) * (self.clips.frames - self.overlap)


@dataclass(frozen=True)
class Schedule:
    """A whole run.

    ema: decay per step of the averaged weights that are validated and exported. gate_minutes: after
    this time matches must beat the same-place answer by gate_ratio. textures: size of the pool.
    validation_clips: per kind of world and set; 0 for a run that is scored along tours instead
    (`drift`). muon: whether the matrices of blocks are moved by Muon instead of AdamW.
    """

    stages: tuple[Stage, ...]
    learning_rate: float = 1.2e-3
    memory_rate: float = 1.2e-3
    camera_rate: float = 6e-4
    encoder_rate: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    ema: float = 0.998
    matching_layers: tuple[int, ...] = (0, 1)
    replay: int = 384
    precision: str = "float32"
    gate_minutes: float = 12.0
    gate_ratio: float = 0.8
    textures: int = 320
    validation_clips: int = 8
    muon: bool = True

    @property
    def minutes(self) -> float:
        """Length of the run."""
        return sum(stage.minutes for stage in self.stages)

    def end_of(self, stage: Stage) -> float:
        """Minutes of training after which a stage is over."""
        return sum(s.minutes for s in self.stages[: self.stages.index(stage) + 1])

    def stage_at(self, minutes: float) -> Stage | None:
        """The stage that is due after some minutes of training, None when all are done."""
        return next((stage for stage in self.stages if minutes < self.end_of(stage)), None)

    def rate(self, minutes: float, steps: int) -> float:
        """Learning rate factor after some minutes and steps."""
        warm = min(1.0, (steps + 1) / self.warmup_steps)
        stage = self.stage_at(minutes) or self.stages[-1]
        left = min(1.0, max(0.0, (self.end_of(stage) - minutes) / stage.minutes))
        first, last = stage.rate
        return warm * (last + (first - last) * (1 - math.cos(math.pi * left)) / 2)


NANO = Architecture(
    image_size_of_pos_embed=56,
    patch_size=7,
    embed_dim=64,
    vit_depth=1,
    vit_num_heads=2,
    num_register_tokens=4,
    vit_layer_scale=1.0,
    depth=5,
    num_heads=2,
    layer_scale=1.0,
    intermediate_layers=(1, 2, 3, 4),
    ttt_layers=(3, 4),
    camera_trunk_depth=1,
    camera_num_heads=2,
    camera_layer_scale=1.0,
    camera_iterations=1,
    dense_head="linear",
    points_head=False,
    image_size=84,
)
"""What one CPU core can train in two hours."""

SEEING = replace(
    NANO,
    encoder="xfeat",
    patch_size=8,
    dense_head="guided",
    image_size=160,
    image_size_of_pos_embed=128,
)
"""The same behind an encoder that was trained on real images, with edges in its depth."""

_MIXED = {"parallax": (0.5, 2.5), "turn": (0.4, 2.0)}
_TO_ZERO = (1.0, 0.02)


def nano_schedule() -> Schedule:
    """Two hours on one CPU core."""
    small = ClipSettings(size=(42, 56), frames=8, sub_rays=1, **_MIXED)
    full = replace(small, size=(63, 84))
    often = {"tours": 0.6, "uses": 8.0}
    last = {"tours": 0.6, "uses": 8.0, "spare_frames": 0, "memory": True, "changes": "memory"}
    weights = LossWeights(depth=0.8)
    return Schedule(
        stages=(
            Stage("A", 60.0, 8, small, **often),
            Stage("B", 45.0, 4, full, weights, asked=0.33, rate=_TO_ZERO, **often),
            Stage("C", 15.0, 2, full, weights, 3, 3, asked=0.33, rate=_TO_ZERO, **last),
        ),
        learning_rate=1.5e-3,
        memory_rate=1.5e-3,
        camera_rate=9e-4,
        matching_layers=(0, 1, 2),
    )


def larger_schedule() -> Schedule:
    """What `nano` has learned, on to larger images: two hours on two CPU cores."""
    middle = ClipSettings(size=(63, 84), frames=8, sub_rays=1, **_MIXED)
    full = replace(middle, size=(84, 112))
    often = {"tours": 0.65, "uses": 8.0, "asked": 0.5}
    weights, depth = LossWeights(depth=1.2), LossWeights(matching=0.5, depth=2.5)
    return Schedule(
        stages=(
            Stage("A", 38.0, 4, middle, weights, **often),
            Stage("B", 26.0, 3, full, weights, rate=(1.0, 0.5), **often),
            Stage("C", 30.0, 3, full, depth, rate=(0.5, 0.02), **often),
            Stage(
                "D", 12.0, 2, full, depth, 4, 3, True, changes="memory",
                spare_frames=0, rate=_TO_ZERO, **often,
            ),
        ),
        memory_rate=1.5e-3,
        camera_rate=8e-4,
        ema=0.999,
        matching_layers=(0, 1, 2),
    )  # fmt: skip


def sharper_schedule() -> Schedule:
    """What `nano-larger` has learned, on to sharper images: an hour and a half on two CPU cores."""
    middle = ClipSettings(size=(84, 112), frames=8, sub_rays=1, **_MIXED)
    full = replace(middle, size=(105, 140))
    often = {"tours": 0.8, "uses": 8.0, "asked": 0.2}
    weights = LossWeights(depth=2.0, field_of_view=2.0)
    return Schedule(
        stages=(
            Stage("A", 22.0, 3, middle, weights, **often),
            Stage("B", 44.0, 3, full, weights, rate=(1.0, 0.15), **often),
            Stage(
                "C", 16.0, 2, full, weights, 4, 3, True, 2,
                spare_frames=0, rate=(0.3, 0.01), **often,
            ),
        ),
        memory_rate=1.5e-3,
        camera_rate=8e-4,
        ema=0.999,
        matching_layers=(0, 1, 2),
    )  # fmt: skip


def memory_schedule() -> Schedule:
    """The memory units of what `nano-sharper` has learned, alone: six minutes on two CPU cores."""
    clips = ClipSettings(size=(105, 140), frames=8, sub_rays=1, **_MIXED)
    weights = LossWeights(depth=2.0, field_of_view=2.0)
    return Schedule(
        stages=(
            Stage(
                "D", 6.0, 2, clips, weights, 4, 3, True, changes="memory",
                tours=0.8, spare_frames=0, uses=8.0, asked=0.1, rate=_TO_ZERO,
            ),
        ),
        memory_rate=1.5e-3,
        warmup_steps=20,
        ema=0.98,
        matching_layers=(0, 1, 2),
        validation_clips=4,
    )  # fmt: skip


def seeing_schedule() -> Schedule:
    """A trained network behind its new encoder, four hours on a share of two CPU cores, from
    rendered worlds on disk; stages A to D have been run."""
    middle = ClipSettings(size=(96, 128), frames=8, sub_rays=1, **_MIXED)
    full = replace(middle, size=(120, 160))
    weights = LossWeights(depth=2.0, field_of_view=2.0)
    common = {"changes": "trunk", "tours": 1.0, "asked": 0.12, "spare_frames": 0}
    return Schedule(
        stages=(
            Stage("A", 28.0, 1, middle, weights, **common),
            Stage(
                "B", 40.0, 1, middle, weights, 4, 3, True, 2, causal=True,
                rate=(0.8, 0.15), **common,
            ),
            Stage(
                "C", 8.0, 1, full, weights, 2, 3, True, 2, causal=True,
                rate=(0.15, 0.01), **common,
            ),
            Stage(
                "D", 24.0, 1, full, weights, 2, 3, True, 2, causal=True,
                rate=(0.4, 0.01), **common,
            ),
            Stage(
                "E", 90.0, 1, full, weights, 2, 3, True, 2, causal=True,
                rate=(0.5, 0.1), **common,
            ),
            Stage(
                "F", 60.0, 1, full, weights, 4, 3, True, 2, causal=True,
                rate=(0.3, 0.01), **common,
            ),
        ),
        learning_rate=7e-4,
        memory_rate=1.5e-3,
        camera_rate=5e-4,
        warmup_steps=30,
        ema=0.98,
        matching_layers=(0, 1, 2),
        textures=36,
        validation_clips=0,
        gate_minutes=float("inf"),
    )  # fmt: skip


def tiny_schedule() -> Schedule:
    """`scal3r-tiny` on one data-centre GPU in 25 minutes, in two or three turns."""
    short = ClipSettings(size=(84, 112), frames=6, sub_rays=1, **_MIXED)
    full = replace(short, size=(168, 224), frames=8)
    last = replace(full, frames=12, sub_rays=2)
    often = {"tours": 0.5, "asked": 0.33}
    return Schedule(
        stages=(
            Stage("A", 9.0, 96, short, uses=4.0, **often),
            Stage(
                "B", 9.0, 32, full, LossWeights(matching=0.5),
                uses=4.0, rate=(1.0, 0.3), **often,
            ),
            Stage(
                "C", 7.0, 6, last, LossWeights(matching=0.1, depth=1.0), 3, 5, True,
                spare_frames=0, uses=3.0, rate=(0.3, 0.02), **often,
            ),
        ),
        learning_rate=1e-3,
        memory_rate=1e-3,
        camera_rate=6e-4,
        warmup_steps=200,
        betas=(0.9, 0.95),
        matching_layers=(0, 1, 2),
        replay=512,
        precision="bfloat16",
        gate_minutes=6.0,
    )  # fmt: skip


def rehearsal_schedule() -> Schedule:
    """All stages in seconds, to check that everything runs before an accelerator is asked for."""
    toy = ClipSettings(size=(28, 42), frames=3, sub_rays=1, **_MIXED)
    return Schedule(
        stages=(
            Stage("A", 0.03, 4, toy, tours=0.5),
            Stage("B", 0.03, 2, replace(toy, frames=4)),
            Stage("C", 0.03, 2, toy, LossWeights(), 2, 1, True, spare_frames=0, asked=0.5),
        ),
        warmup_steps=10,
        replay=16,
        textures=36,
        validation_clips=2,
    )


def fine_tune_schedule() -> Schedule:
    """Low rates, for weights that are already trained; the full size needs a large GPU."""
    clips = ClipSettings(size=(378, 518), frames=16, parallax=(0.3, 1.5), turn=(0.2, 0.8))
    weights = LossWeights(matching=0.0, depth=1.0)
    return Schedule(
        stages=(
            Stage(
                "fine", 60.0, 1, clips, weights, 4, 6, True, spare_frames=0, uses=1.0, rate=_TO_ZERO
            ),
        ),
        learning_rate=1e-5,
        camera_rate=1e-5,
        memory_rate=1e-4,
        warmup_steps=100,
        replay=32,
        precision="bfloat16",
        gate_minutes=float("inf"),
        muon=False,
    )


SCHEDULES = {
    "nano": (NANO, nano_schedule),
    "nano-larger": (replace(NANO, image_size=112), larger_schedule),
    "nano-sharper": (replace(NANO, image_size=140), sharper_schedule),
    "nano-memory": (replace(NANO, image_size=140), memory_schedule),
    "nano-seeing": (SEEING, seeing_schedule),
    "scal3r-tiny": (preset("scal3r-tiny"), tiny_schedule),
    "rehearsal": (NANO, rehearsal_schedule),
    "fine-tune": (preset("scal3r"), fine_tune_schedule),
}
"""Architecture and schedule by name."""
