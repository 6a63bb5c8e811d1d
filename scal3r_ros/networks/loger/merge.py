"""One result from the windows of a sequence, as the release makes it offline.

A window may stay where the memory put it (LoGeR), be moved rigidly onto the one before (LoGeR*,
and LoGeR at resets), or by a similarity. Of two windows that share a frame the later one's counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scal3r_ros.networks.loger.heads import world_points
from scal3r_ros.networks.loger.network import Prediction

_LEAST_DEPTH = torch.finfo(torch.float32).eps
_SCALE_LIMITS = (1e-3, 1e3)
_TRIMMED = 0.25


@dataclass(frozen=True)
class Placement:
    """Where a window goes: points p become scale * rotation p + translation."""

    transform: Tensor
    """(4, 4) rigid: rotation and translation, the scale is not multiplied in."""
    scale: Tensor
    """Scalar."""

    def moved(self, poses: Tensor) -> Tensor:
        """Poses (S, 4, 4) of the window in the common frame; rigid again."""
        moved = self.transform @ poses
        shift = self.transform[:3, :3] @ poses[:, :3, 3:]
        moved[:, :3, 3] = (self.scale * shift)[..., 0] + self.transform[:3, 3]
        return moved


@dataclass(frozen=True)
class Sequence3d:
    """Every frame once, in order."""

    poses: Tensor
    """(N, 4, 4) camera to common frame."""
    local_points: Tensor
    confidence: Tensor
    """Logits."""

    @property
    def points(self) -> Tensor:
        """(N, H, W, 3) in the common frame."""
        return world_points(self.poses, self.local_points)

    def canonical(self) -> Sequence3d:
        """Relative to the first camera."""
        first = torch.linalg.inv(self.poses[:1])
        return Sequence3d(first @ self.poses, self.local_points, self.confidence)


def merged(
    windows: Sequence[Prediction], spans: Sequence[range], placements: Sequence[Placement]
) -> Sequence3d:
    """Windows without batch dimension, of frames `spans`, each moved to its place."""
    frames: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    for window, span, place in zip(windows, spans, placements):
        points = place.scale * window.local_points
        frames |= dict(zip(span, zip(place.moved(window.poses), points, window.confidence)))
    ordered = [frames[number] for number in sorted(frames)]
    return Sequence3d(*(torch.stack(x) for x in zip(*ordered)))


def as_predicted(windows: Sequence[Prediction], spans: Sequence[range]) -> list[Placement]:
    """All windows stay: the memory keeps one gauge."""
    return [_identity(windows[0].poses) for _ in windows]


def rigid(windows: Sequence[Prediction], spans: Sequence[range]) -> list[Placement]:
    """Every window is moved so that its first frame has the pose it has in the one before."""
    return by_block(windows, spans, reset_every=1)


def by_block(
    windows: Sequence[Prediction], spans: Sequence[range], reset_every: int
) -> list[Placement]:
    """The first window after a reset is moved as in `rigid`, the others of its block with it."""
    places = [_identity(windows[0].poses)]
    for m in range(1, len(windows)):
        if m % reset_every == 0:
            places.append(_onto(windows, spans, places[-1], m, places[0].scale))
        else:
            places.append(places[-1])
    return places


def similar(
    windows: Sequence[Prediction],
    spans: Sequence[range],
    scale: Callable[[Tensor, Tensor], Tensor],
    all_shared: bool = False,
) -> list[Placement]:
    """As `rigid`, with a scale from the depths of the first shared frame, or of all of them."""
    places = [_identity(windows[0].poses)]
    for m in range(1, len(windows)):
        shared = spans[m - 1].stop - spans[m].start if all_shared else 1
        at = spans[m].start - spans[m - 1].start
        before = places[-1].scale * windows[m - 1].local_points[at : at + shared, ..., 2]
        ratio = scale(before, windows[m].local_points[:shared, ..., 2])
        places.append(_onto(windows, spans, places[-1], m, ratio))
    return places


def median_scale(before: Tensor, now: Tensor) -> Tensor:
    """Lower median of the ratios of depth."""
    return _limited(_ratios(before, now), torch.median)


def trimmed_mean_scale(before: Tensor, now: Tensor) -> Tensor:
    """Mean of the ratios without the smallest and the largest quarter."""

    def trimmed(ratios: Tensor) -> Tensor:
        cut = int(_TRIMMED * len(ratios))
        return ratios.sort().values[cut : len(ratios) - cut].mean()

    return _limited(_ratios(before, now), trimmed)


def damped_scale(before: Tensor, now: Tensor) -> Tensor:
    """Half way between the median ratio and one."""
    return _limited(_ratios(before, now), lambda ratios: (ratios.median() + 1) / 2)


def _identity(like: Tensor) -> Placement:
    return Placement(torch.eye(4, dtype=like.dtype, device=like.device), like.new_ones(()))


def _onto(
    windows: Sequence[Prediction],
    spans: Sequence[range],
    previous: Placement,
    m: int,
    scale: Tensor,
) -> Placement:
    """Place window m so that its first frame has the pose that window m - 1 gives it."""
    at = spans[m].start - spans[m - 1].start
    wanted = previous.moved(windows[m - 1].poses[at : at + 1])[0]
    found = windows[m].poses[0]
    transform = torch.eye(4, dtype=found.dtype, device=found.device)
    transform[:3, :3] = wanted[:3, :3] @ found[:3, :3].T
    transform[:3, 3] = wanted[:3, 3] - scale * transform[:3, :3] @ found[:3, 3]
    return Placement(transform, scale)


def _ratios(before: Tensor, now: Tensor) -> Tensor:
    valid = before.isfinite() & now.isfinite() & (now.abs() > _LEAST_DEPTH)
    return before[valid] / now[valid]


def _limited(ratios: Tensor, estimate: Callable[[Tensor], Tensor]) -> Tensor:
    if not len(ratios):
        return ratios.new_ones(())
    return estimate(ratios).clamp(*_SCALE_LIMITS)
