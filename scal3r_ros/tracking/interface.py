"""What every tracker answers: one image at a time, causal, with a state that can be handed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from scal3r_ros.records import Frame


class TrackingLost(RuntimeError):
    """There is no pose for this image; the message says why and what ends it."""


@dataclass(frozen=True)
class TrackerFrame:
    """What a tracker says about one image."""

    T_block_camera: np.ndarray
    """(4, 4) float64, rigid. A block is the stretch of time that shares one frame and scale."""
    block_id: int
    frame_in_block: int
    update_strength: float = 0.0
    """Mean share of the state that this image overwrote, 0 to 1."""
    points: np.ndarray | None = None
    """(H, W, 3) float32 in the camera's frame, block units; None from trackers without depth."""
    confidence: np.ndarray | None = None
    """(H, W) float32, above 1."""


class Tracker(Protocol):
    """Images in, poses out. Laws: `restore(state())` continues bitwise; `update=False` leaves
    `state()` as it is; `reset()` equals a new tracker."""

    def reset(self) -> None:
        """Forget everything: the next image is the first."""

    def step(self, frame: Frame, *, update: bool = True) -> TrackerFrame:
        """The next image; raises `TrackingLost` when its pose cannot be told."""

    def state(self) -> dict[str, np.ndarray]:
        """Everything that is carried to the next image, as copies."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on where `state` was taken; raises `ValueError` if it is another tracker's."""


@dataclass(frozen=True)
class Submap:
    """The newest mapped chunk, as trackers hold on to it; all in map units and the map's frame."""

    stamps_ns: np.ndarray
    """(S,) int64, rising."""
    T_map_camera: np.ndarray
    """(S, 4, 4) float64, rigid."""
    depth: np.ndarray
    """(S, H, W) float32 z-depth, NaN where unknown."""
    confidence: np.ndarray
    """(S, H, W) float32, 0 where depth is unknown."""
    intrinsics: np.ndarray
    """(S, 3, 3) float64, in pixels of `depth`."""
    typical_depth: float = field(init=False)
    """Median of what is known, the length that tolerances are relative to."""

    def __post_init__(self) -> None:
        known = self.depth[np.isfinite(self.depth) & (self.depth > 0)]
        if not len(known):
            raise ValueError("a submap without any depth cannot be tracked against")
        object.__setattr__(self, "typical_depth", float(np.median(known)))

    def arrays(self) -> dict[str, np.ndarray]:
        """What it was made of, by name."""
        names = ("stamps_ns", "T_map_camera", "depth", "confidence", "intrinsics")
        return {name: getattr(self, name) for name in names}


class LiveTracker(Tracker, Protocol):
    """A tracker whose blocks are tied to the map."""

    correction: np.ndarray
    """(4, 4) by which the submap that took over with the last step sees the map moved: the new pose
    of one image is this times its old pose. Identity when none took over."""

    anchored_ns: int
    """Stamp of the mapped image that poses are counted from; -1 without one."""

    def leave_map(self) -> None:
        """The map is another one: poses are told again from the next anchor on."""

    def anchor(self, submap: Submap) -> None:
        """Tell later poses in the coordinates of this submap, as soon as that can be done."""
