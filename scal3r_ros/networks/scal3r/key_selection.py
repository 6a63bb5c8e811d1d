"""Which keys and values the queries of a global block see: less than all of them, without training.

Three published schemes, each a rule for every layer. Queries are never left out, so that memory
units and heads see all tokens whatever the scheme.

- `frames` (GoToHunt, Liu et al. 2026): early layers look inside their frame, middle ones at a grid
  of the patches of some frames, late ones at all tokens of those frames, which are chosen to differ
  as much as possible.
- `grid` (AVGGT, 2025): early layers look inside their frame, middle ones at special tokens, all of
  the first frame, a grid of the others and the mean of what is left out; the last ones at
  everything. The grid is shifted from frame to frame (RegimeVGGT 2026), so that neighbours fill
  each other's holes.
- `merge` (FastVGGT, ICLR 2026): tokens that look alike are averaged before attention and given the
  same answer after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scal3r_ros.networks.layers import Attention, Rotary
from scal3r_ros.networks.scal3r.token_merging import merged_attention

SCHEMES = ("none", "frames", "grid", "merge")
PUBLISHED_DEPTH = 24
INSIDE_UNTIL = {"frames": 2, "grid": 9}
"""Of 24 layers, the first that looks beyond its own frame."""
GRID_UNTIL = {"frames": 9, "grid": 20}
"""Of 24 layers, the first after those that see a grid."""


@dataclass(frozen=True)
class KeySelection:
    """A scheme and its sizes."""

    scheme: str = "none"
    frames: int = 15
    """Frames whose keys are seen, scheme `frames`."""
    grid: int = 3
    """Of this many patches in either direction one is seen; schemes `frames` and `grid`."""
    mean_of_rest: bool = True
    """Scheme `grid`: one more key and value, the mean of all that are left out."""

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}; found {self.scheme!r}")
        if self.frames < 1 or self.grid < 1:
            raise ValueError(f"frames and grid must be positive, found {self.frames}, {self.grid}")

    def rule(self, layer: int, depth: int) -> str:
        """`all`, `inside` a frame, `grid`, `frames` or `merge`: what a layer of `depth` sees."""
        if self.scheme in ("none", "merge"):
            return "all" if self.scheme == "none" else "merge"
        scaled = depth / PUBLISHED_DEPTH
        if layer < round(INSIDE_UNTIL[self.scheme] * scaled):
            return "inside"
        if layer < round(GRID_UNTIL[self.scheme] * scaled):
            return "grid"
        return "frames" if self.scheme == "frames" else "all"

    def seen(
        self, layer: int, depth: int, grid: tuple[int, int], special: int, frames: Tensor
    ) -> Tensor | None:
        """Places (n,) of the tokens that are keys in a layer, among those of all S frames; None for
        all. `frames` (S,) bool: those chosen by `diverse_frames`."""
        rule = self.rule(layer, depth)
        if rule not in ("grid", "frames"):
            return None
        count, device = len(frames), frames.device
        kept = torch.ones(count, special + grid[0] * grid[1], dtype=torch.bool, device=device)
        if rule == "grid":
            kept[1 if self.scheme == "grid" else 0 :, special:] = False
            start = 1 if self.scheme == "grid" else 0
            for frame in range(start, count):
                kept[frame, special:] = _grid(grid, self.grid, frame, device)
        if self.scheme == "frames":
            kept &= frames[:, None]
        return kept.flatten().nonzero()[:, 0]


def diverse_frames(tokens: Tensor, count: int) -> Tensor:
    """(S,) bool: `count` frames of patch tokens (S, P, C) by greedy farthest-point search from the
    first on, distance one minus the cosine of the mean token."""
    means = torch.nn.functional.normalize(tokens.float().mean(dim=1), dim=-1)
    chosen = torch.zeros(len(means), dtype=torch.bool, device=tokens.device)
    chosen[0] = True
    distance = 1.0 - means @ means[0]
    for _ in range(min(count, len(means)) - 1):
        distance = distance.masked_fill(chosen, -1.0)
        farthest = int(distance.argmax())
        chosen[farthest] = True
        distance = torch.minimum(distance, 1.0 - means @ means[farthest])
    return chosen


def attend_selected(
    attention: Attention,
    x: Tensor,
    rotary: Rotary,
    selection: KeySelection,
    layer: int,
    depth: int,
    grid: tuple[int, int],
    frames: Tensor,
) -> Tensor:
    """What `attention(x, rotary)` gives when each query sees only the keys that the layer's rule
    keeps: (B, S * P, C). `x`: normalised tokens of S = len(frames) frames; `frames` (S,) bool."""
    per_frame = x.shape[1] // len(frames)
    special = per_frame - grid[0] * grid[1]
    rule = selection.rule(layer, depth)
    if rule == "inside":
        inside = x.unflatten(1, (len(frames), per_frame)).flatten(0, 1)
        return attention(inside, rotary).view_as(x)
    if rule == "merge":
        return merged_attention(attention, x, rotary, len(frames), grid, special)
    q, k, v = attention.heads(x, rotary)
    places = selection.seen(layer, depth, grid, special, frames)
    if places is None:
        return attention.attend(q, k, v)
    keys, values = k[:, :, places], v[:, :, places]
    left_out = k.shape[2] - len(places)
    if selection.scheme == "grid" and selection.mean_of_rest and left_out:
        keys, values = (
            torch.cat((kept, (whole.sum(2, True) - kept.sum(2, True)) / left_out), dim=2)
            for kept, whole in ((keys, k), (values, v))
        )
    return attention.attend(q, keys, values)


def _grid(grid: tuple[int, int], step: int, frame: int, device: torch.device) -> Tensor:
    """(gh * gw,) bool: one patch of every `step` x `step`, another one in the next frame."""
    row = torch.arange(grid[0], device=device) % step == (frame // step) % step
    column = torch.arange(grid[1], device=device) % step == frame % step
    return (row[:, None] & column[None]).flatten()
