"""The reconstructor's memory of geometry: the last frames that it solved, with their points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.reconstruct.sfm.features import Features
from scal3r_ros.reconstruct.sfm.incremental import Known
from scal3r_ros.reconstruct.sfm.model import Model, Tracks

_LENGTH = 24
"""Frames remembered."""
_LEAST_SHARED = 3
_MAX_TURN, _MAX_SHIFT = np.radians(5.0), 0.25
"""How far frames may be from where they were: median turn (rad) and mean distance, as a share of
their spread."""


@dataclass(frozen=True)
class Window:
    """Frames in order of time, solved together, in a frame and scale of their own."""

    frame_ids: tuple[int, ...]
    features: tuple[Features, ...]
    T_model_camera: np.ndarray
    """(S, 4, 4) float64."""
    tracks: Tracks
    """Its frames are rows of `frame_ids`."""

    @staticmethod
    def of(model: Model, frame_ids: Sequence[int], features: Sequence[Features]) -> Window:
        """The last frames of a model; `frame_ids` and `features` are of all frames it was built
        from."""
        rows = list(range(len(model.positions)))[-_LENGTH:]
        positions = [model.positions[row] for row in rows]
        return Window(
            tuple(frame_ids[p] for p in positions),
            tuple(features[p] for p in positions),
            model.T_model_camera[rows],
            model.tracks.of(rows),
        )

    def known(self, frame_ids: Sequence[int]) -> Known:
        """What is remembered, for frames of which all remembered ones come first."""
        positions = tuple(frame_ids.index(i) for i in self.frame_ids)
        return Known(positions, self.T_model_camera, self.tracks)

    def check(self, model: Model, frame_ids: Sequence[int]) -> None:
        """Raise `ReconstructionFailed` if a model that was built from `frame_ids` has the
        remembered frames at other places, whatever its own frame and scale are."""
        rows = {frame_ids[position]: row for row, position in enumerate(model.positions)}
        shared = [(row, rows[i]) for row, i in enumerate(self.frame_ids) if i in rows]
        if len(shared) < _LEAST_SHARED:
            return
        ours, theirs = (poses[list(chosen)] for poses, chosen in zip(
            (self.T_model_camera, model.T_model_camera), zip(*shared)))  # fmt: skip
        turn, shift = disagreement(ours, theirs)
        if turn > _MAX_TURN or shift > _MAX_SHIFT:
            raise ReconstructionFailed(
                f"frames solved before have other poses now: {np.degrees(turn):.0f} degrees and "
                f"{100 * shift:.0f} % of their path off"
            )

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays, to save."""
        return {
            "window.ids": np.array(self.frame_ids, np.int64),
            "window.counts": np.array([len(item.pixels) for item in self.features], np.int64),
            "window.precise": np.array([item.precise for item in self.features], np.int64),
            "window.pixels": np.concatenate([item.pixels for item in self.features]),
            "window.descriptors": np.concatenate([item.descriptors for item in self.features]),
            "window.poses": self.T_model_camera,
            "window.points": self.tracks.points,
            "window.tracks": np.stack(
                [self.tracks.point, self.tracks.frame, self.tracks.feature], axis=1
            ),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Window:
        """What `arrays` wrote."""
        ends = np.cumsum(arrays["window.counts"])[:-1]
        parts = [np.split(arrays[f"window.{name}"], ends) for name in ("pixels", "descriptors")]
        return Window(
            tuple(int(i) for i in arrays["window.ids"]),
            tuple(
                Features(pixels, descriptors, int(precise))
                for pixels, descriptors, precise in zip(*parts, arrays["window.precise"])
            ),
            np.array(arrays["window.poses"]),
            Tracks(np.array(arrays["window.points"]), *np.array(arrays["window.tracks"]).T),
        )


def disagreement(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """How far poses (S, 4, 4) differ in two frames of different scale: median turn (rad), and RMS
    distance relative to the spread of the cameras."""
    across = second[:, :3, :3] @ first[:, :3, :3].transpose(0, 2, 1)
    left, _, right = np.linalg.svd(across.sum(axis=0))
    R = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
    apart = np.einsum("sij,kj->sik", across, R)
    turns = np.arccos(np.clip((np.trace(apart, axis1=1, axis2=2) - 1) / 2, -1, 1))
    a, b = (T[:, :3, 3] - T[:, :3, 3].mean(axis=0) for T in (first, second))
    a = a @ R.T
    spread = float((b * b).sum())
    off = b - a * float((a * b).sum()) / max(float((a * a).sum()), 1e-12)
    return float(np.median(turns)), float(np.sqrt((off * off).sum() / max(spread, 1e-12)))
