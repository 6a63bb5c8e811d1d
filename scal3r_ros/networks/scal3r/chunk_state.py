"""What is alive of one chunk while the network runs through its layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scal3r_ros.networks.layers import Rotary

_ROTARIES = ("frame_rotary", "memory_rotary")


@dataclass(frozen=True)
class ChunkShell:
    """A chunk state without its tensors: plain values that can be written down as they are."""

    grid: tuple[int, int]
    next_layer: int
    awaits: int | None
    levels: Mapping[str, int]
    """By dense head: how many collected layers it has projected."""

    def joined(self, tensors: Mapping[str, Tensor]) -> ChunkState:
        """The whole state again, from the tensors of `ChunkState.split` and on their device."""
        frame, memory = (
            Rotary(tensors[f"{name}.cos"], tensors[f"{name}.sin"]) for name in _ROTARIES
        )
        return ChunkState(
            tensors["tokens"],
            self.grid,
            frame,
            memory,
            self.next_layer,
            self.awaits,
            tensors.get("frame_half"),
            {
                head: tuple(tensors[f"levels.{head}.{i}"] for i in range(count))
                for head, count in self.levels.items()
            },
            tensors.get("camera_tokens"),
            tensors.get("key_frames"),
        )


@dataclass
class ChunkState:
    """Tokens on their way, and what the heads need of the layers already passed.

    Tensors are replaced, never written in place: a shallow copy is a valid restart point.
    """

    tokens: Tensor
    """(B, S, P, C) float32 residual stream."""
    grid: tuple[int, int]
    """Patches per frame, (gh, gw)."""
    frame_rotary: Rotary
    """Rotary table of one frame's tokens, for frame and global attention."""
    memory_rotary: Rotary
    """Rotary table of one frame's patches, for the memory units."""
    next_layer: int = 0
    awaits: int | None = None
    """Memory layer whose block has run but whose memory has not been added yet."""
    frame_half: Tensor | None = None
    """Output of the last frame block, kept while a collected layer waits for its memory."""
    levels: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    """By dense head: its projections of the collected layers so far, each (B * S, ...)."""
    camera_tokens: Tensor | None = None
    """(B, S, 2C) of the last layer."""
    key_frames: Tensor | None = None
    """(S,) bool, the frames whose keys are seen if not all of them are (`key_selection`)."""

    def copy(self) -> ChunkState:
        return dataclasses.replace(self, levels=dict(self.levels))

    def split(self) -> tuple[ChunkShell, dict[str, Tensor]]:
        """The state without its tensors, and these by name."""
        tensors = {"tokens": self.tokens}
        for name in _ROTARIES:
            rotary = getattr(self, name)
            tensors |= {f"{name}.cos": rotary.cos, f"{name}.sin": rotary.sin}
        for name in ("frame_half", "camera_tokens", "key_frames"):
            if getattr(self, name) is not None:
                tensors[name] = getattr(self, name)
        for head, levels in self.levels.items():
            tensors |= {f"levels.{head}.{i}": level for i, level in enumerate(levels)}
        counts = {head: len(levels) for head, levels in self.levels.items()}
        return ChunkShell(self.grid, self.next_layer, self.awaits, counts), tensors

    def to(self, device: torch.device | str) -> ChunkState:
        """The same state on another device."""

        def moved(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device)

        return dataclasses.replace(
            self,
            tokens=self.tokens.to(device),
            frame_rotary=Rotary(*(x.to(device) for x in self.frame_rotary)),
            memory_rotary=Rotary(*(x.to(device) for x in self.memory_rotary)),
            frame_half=moved(self.frame_half),
            levels={k: tuple(x.to(device) for x in v) for k, v in self.levels.items()},
            camera_tokens=moved(self.camera_tokens),
            key_frames=moved(self.key_frames),
        )
