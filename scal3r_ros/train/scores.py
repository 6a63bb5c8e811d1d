"""Scores of predicted chunks against the truth, and of the baselines that know nothing.

All pairs of frames of a chunk are scored: rotation angle between predicted and true relative
rotation, angle between relative translations where the cameras are apart, depth after one scale
per chunk, field of view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scal3r_ros.train.losses import Targets

MIN_BASELINE = 0.05
"""Directions are scored where cameras are at least this far apart, in units of the scene."""


@dataclass(frozen=True)
class Scores:
    """Errors of every pair, chunk or frame; degrees, and relative depth errors.

    rotation, direction: per frame pair. rel, delta: per chunk. fov: per frame.
    """

    rotation: Tensor
    direction: Tensor
    rel: Tensor
    delta: Tensor
    fov: Tensor

    def summary(self) -> dict[str, float]:
        """Medians and means."""
        return {
            "rotation": _median(self.rotation),
            "rotation_mean": float(self.rotation.mean()),
            "direction": _median(self.direction),
            "direction_mean": float(self.direction.mean()),
            "abs_rel": _median(self.rel),
            "abs_rel_mean": float(self.rel.mean()),
            "delta": float(self.delta.mean()),
            "fov": float(self.fov.mean()),
        }

    @staticmethod
    def join(scores: list[Scores]) -> Scores:
        """Pool the scores of several batches."""
        names = ("rotation", "direction", "rel", "delta", "fov")
        return Scores(*(torch.cat([getattr(s, n) for s in scores]) for n in names))


def _median(values: Tensor) -> float:
    """NaN where nothing could be scored: no camera moved, or all is sky."""
    return float(values.median()) if len(values) else float("nan")


def score(encoding: Tensor, depth: Tensor, targets: Targets) -> Scores:
    """Score encodings (W, S, 9) and depth (W, S, H, W') of chunks."""
    first, second = torch.triu_indices(encoding.shape[1], encoding.shape[1], 1)
    found_R, found_t = relative(encoding, first, second)
    true_R, true_t = relative(targets.encoding, first, second)
    trace = torch.einsum("wpij,wpij->wp", found_R, true_R)
    rotation = torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))
    cosine = torch.nn.functional.cosine_similarity(found_t, true_t, dim=-1)
    direction = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    apart = true_t.norm(dim=-1) > MIN_BASELINE
    rel, delta = _depth_scores(depth, targets)
    fov = torch.rad2deg((encoding[..., 7:] - targets.encoding[..., 7:]).abs().mean(-1))
    return Scores(rotation.flatten(), direction[apart], rel, delta, fov.flatten())


def relative(encoding: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation (W, P, 3, 3) and translation (W, P, 3) from camera `first` to camera `second`."""
    rotation = rotation_matrix(encoding[..., 3:7])
    translation = encoding[..., :3]
    turn = rotation[:, second] @ rotation[:, first].transpose(-1, -2)
    return turn, translation[:, second] - (turn @ translation[:, first, :, None])[..., 0]


def rotation_matrix(q: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (x, y, z, w), not necessarily unit."""
    x, y, z, w = torch.nn.functional.normalize(q, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _depth_scores(depth: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    rel, delta = [], []
    for found, log_true, solid in zip(depth, targets.log_depth, targets.solid):
        if not bool(solid.any()):
            continue
        truth, found = log_true[solid].exp(), found[solid].clamp(min=1e-6)
        found = found * (truth / found).median()
        rel.append(((found - truth).abs() / truth).mean())
        delta.append((torch.maximum(found / truth, truth / found) < 1.25).float().mean())
    return depth.new_tensor(rel), depth.new_tensor(delta)


def baseline(targets: Targets, mean_log_depth: Tensor, mean_motion: Tensor) -> Scores:
    """No rotation, the mean motion of the place in the sequence, the mean depth map, mean field of
    view. mean_log_depth: (H, W'); mean_motion: (S, 3) translations in network order."""
    encoding = targets.encoding.clone()
    encoding[..., :3] = mean_motion
    encoding[..., 3:7] = encoding.new_tensor([0.0, 0.0, 0.0, 1.0])
    encoding[..., 7:] = targets.encoding[..., 7:].mean((0, 1))
    depth = mean_log_depth.exp().expand_as(targets.log_depth)
    return score(encoding, depth, targets)
