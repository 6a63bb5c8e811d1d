"""CUT3R and Mem3R as a reconstructor: the frames of chunks, one by one, through the recurrence.

Frames that chunks share are told once: the second chunk repeats what the first one said, so within
a block all poses are rigid to each other. Behind a reset the shared frames are told again, by the
new block, and only they tie its scale to the old one's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from scal3r_ros.networks.mem3r.network import Mem3R
from scal3r_ros.networks.mem3r.recurrence import State, begin, step
from scal3r_ros.networks.mem3r.state_arrays import state_arrays, state_from_arrays
from scal3r_ros.networks.mem3r.state_rules import RULES
from scal3r_ros.reconstruct.devices import naming_lack_of_memory
from scal3r_ros.reconstruct.interface import (
    MemoryState,
    Outcome,
    ReconstructionFailed,
    attempt,
)
from scal3r_ros.reconstruct.mem3r.frame_answer import FrameAnswer, read_out, stacked
from scal3r_ros.reconstruct.mem3r.images import network_input, prepare
from scal3r_ros.records import Chunk, ChunkPrediction, Frame


@dataclass(frozen=True)
class RecurrenceSettings:
    """How the state is written, and what is kept between chunks."""

    rule: str = "ttt3r"
    overlap: int = 6
    """Newest frames whose answers are kept for the next chunk."""
    reset_every: int = 0
    """Chunks after which the state is forgotten; 0 never."""
    memory: bool = True
    """Without, every chunk is a block of its own; for comparison."""
    image_size: int = 0
    """0 takes the checkpoint's own."""


@dataclass(frozen=True)
class _Memory:
    """What one chunk leaves for the next."""

    state: State | None = None
    answers: dict[int, FrameAnswer] = field(default_factory=dict)
    """By frame id."""
    absorbed: int = 0
    in_block: int = 0
    """Chunks since the state was empty."""


class Mem3RReconstructor:
    """Implements `Reconstructor`."""

    name = "mem3r"
    round_size: int | None = 1

    def __init__(self, network: Mem3R, fingerprint: str, settings: RecurrenceSettings) -> None:
        if settings.rule not in RULES:
            known = ", ".join(RULES)
            raise ValueError(f"unknown state rule {settings.rule!r}; known are {known}")
        self.network, self.fingerprint, self._settings = network, fingerprint, settings
        self._device = network.pose_token.device
        self.reset()

    def reset(self) -> None:
        """Forget everything absorbed."""
        self._memory = _Memory()

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        """One chunk; without `contribute` it is a block of its own and leaves nothing. Raises
        `ReconstructionFailed`, and then the next chunk begins a block."""
        if not contribute or not self._settings.memory:
            prediction, after = self._run(chunk, _Memory(absorbed=self._memory.absorbed))
            if contribute:
                self._memory = _Memory(absorbed=after.absorbed)
            return prediction
        try:
            prediction, self._memory = self._run(chunk, self._memory)
        except ReconstructionFailed:
            self._memory = _Memory(absorbed=self._memory.absorbed)
            raise
        return prediction

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Outcome]:
        """One chunk after the other."""
        return [attempt(self, chunk) for chunk in chunks]

    def state(self) -> MemoryState:
        """The state of the recurrence, and what was told of the newest frames."""
        memory = self._memory
        numbers = np.array([memory.in_block, *memory.answers], np.int64)
        arrays = {"numbers": numbers, "rule": np.array(self._settings.rule)}
        if memory.state is not None:
            recurrent = state_arrays(self.network, memory.state)
            arrays |= {f"state.{name}": value for name, value in recurrent.items()}
        for number, answer in memory.answers.items():
            arrays |= {f"{number}.{name}": value for name, value in vars(answer).items()}
        return MemoryState(self.name, self.fingerprint, memory.absorbed, arrays)

    def restore(self, state: MemoryState) -> None:
        """Replace the memory; an unfit `state` raises `ValueError` and changes nothing."""
        state.require(self.name, self.fingerprint)
        if "numbers" not in state.arrays:
            raise ValueError("the memory holds no recurrent state; reset it instead")
        if str(state.arrays["rule"]) != self._settings.rule:
            raise ValueError(
                f"the memory was written by state rule {state.arrays['rule']}, model.state_rule is "
                f"{self._settings.rule}; set it as it was"
            )
        in_block, *ids = np.array(state.arrays["numbers"]).tolist()
        parts = {name: np.array(value) for name, value in state.arrays.items()}
        answers = {
            number: FrameAnswer(
                **{name: parts[f"{number}.{name}"] for name in FrameAnswer.__dataclass_fields__}
            )
            for number in ids
        }
        recurrent = {k[6:]: v for k, v in parts.items() if k.startswith("state.")}
        restored = state_from_arrays(self.network, recurrent) if recurrent else None
        self._memory = _Memory(restored, answers, state.version, in_block)

    @torch.inference_mode()
    def _run(self, chunk: Chunk, before: _Memory) -> tuple[ChunkPrediction, _Memory]:
        """The prediction, and what the chunk leaves."""
        started = time.perf_counter()
        follows = bool(chunk.overlap_ids) and before.state is not None
        reset_every = self._settings.reset_every
        emptied = follows and reset_every > 0 and before.in_block >= reset_every
        goes_on = follows and not emptied
        state = before.state if goes_on and before.state is not None else begin(self.network)
        answers = dict(before.answers) if goes_on else {}
        with naming_lack_of_memory(self._device, lambda: "an image", lambda: None):
            for frame in chunk.frames:
                if frame.id not in answers:
                    state, answers[frame.id] = self._told(frame, state)
        mine = [answers[frame.id] for frame in chunk.frames]
        prediction = stacked(chunk, mine)
        absorbed = before.absorbed + 1
        kept = chunk.frame_ids[-max(self._settings.overlap, 1) :]
        after = _Memory(
            state,
            {number: answers[number] for number in kept},
            absorbed,
            before.in_block + 1 if goes_on else 1,
        )
        return replace(
            prediction,
            gauge="rigid" if follows else "free",
            starts_segment=emptied,
            memory_version=absorbed,
            timings={"layers": time.perf_counter() - started},
        ), after

    def _told(self, frame: Frame, state: State) -> tuple[State, FrameAnswer]:
        a = self.network.architecture
        prepared = prepare(frame.rgb, self._settings.image_size or a.image_size, a.patch_size)
        images = torch.from_numpy(network_input(prepared.rgb))[None].to(self._device)
        encoded = self.network.encode(images)
        after, seen = step(self.network, state, encoded, RULES[self._settings.rule])
        return after, read_out(self.network, frame.id, prepared.rgb, encoded, seen)
