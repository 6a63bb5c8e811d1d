"""`tracking.kind: features`: corners of the live images against the depth of the last submap.

Corners are followed all the time; what was observed is remembered for some seconds. When a chunk is
mapped, an odometer starts at its newest frame and is replayed, a few images per step, up to the
present; then it takes over. So every pose is in the scale of the newest submap, however late that
came, and no image is ever looked at twice.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.records import Frame
from scal3r_ros.tracking.corners import Corners, Observations
from scal3r_ros.tracking.history import History
from scal3r_ros.tracking.interface import Submap, TrackerFrame, TrackingLost
from scal3r_ros.tracking.odometer import Odometer

_CATCH_UP = 4
"""Remembered images replayed per live one."""
_FORMAT = "features 1"


class FeatureTracker:
    """Needs an anchor before it can say anything; works with every reconstructor."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next image is the first."""
        self._corners, self._history = Corners(), History()
        self._active: Odometer | None = None
        self._upcoming: Odometer | None = None
        self._pending: Submap | None = None
        self._block, self._frames = 0, 0
        self.correction = np.eye(4)

    @property
    def anchored_ns(self) -> int:
        return -1 if self._active is None else self._active.anchored_ns

    def leave_map(self) -> None:
        """The map is another one: poses are told again from the next anchor on."""
        self._active = self._upcoming = self._pending = None

    def anchor(self, submap: Submap) -> None:
        """Begin at this submap and take over at the present. Of several the newest counts."""
        self._pending = submap

    def step(self, frame: Frame, *, update: bool = True) -> TrackerFrame:
        """Pose of the next image in the map; raises `TrackingLost`."""
        if update:
            return self._step(frame)
        saved = self.state()
        try:
            return self._step(frame)
        finally:
            self.restore(saved)

    def _step(self, frame: Frame) -> TrackerFrame:
        self.correction = np.eye(4)
        self._check_stream(frame)
        observations = self._corners.follow(frame.rgb, frame.stamp_ns)
        self._history.append(observations)
        lost = self._follow(observations)
        self._catch_up(frame)
        if self._active is None:
            raise TrackingLost(lost or "no mapped chunk has been followed up to the present yet")
        self._frames += 1
        return TrackerFrame(self._active.pose.copy(), self._block, self._frames - 1, 1.0)

    def _follow(self, observations: Observations) -> str:
        """Move on with the active odometer; why it cannot, empty if it can."""
        if self._active is None:
            return ""
        try:
            self._active.advance(observations)
        except TrackingLost as lost:
            self._active = None
            return str(lost)
        return ""

    def _check_stream(self, frame: Frame) -> None:
        """Another image size or a step back in time begins a new stream."""
        resized = not self._corners.fits(frame.rgb)
        if not resized and frame.stamp_ns > self._history.newest_ns:
            return
        size = "x".join(map(str, frame.rgb.shape[1::-1]))
        why = f"image size changed to {size}" if resized else "stamps went back"
        block = self._block
        self.reset()
        self._block = block
        self._corners.follow(frame.rgb, frame.stamp_ns)
        raise TrackingLost(f"{why}; the next chunk starts tracking again from mapped images")

    def _catch_up(self, frame: Frame) -> None:
        """Begin at a submap and replay a few remembered images; at the present it takes over."""
        if self._upcoming is None and self._pending is not None:
            submap, self._pending = self._pending, None
            try:
                camera = _camera(submap, frame)
                self._upcoming = Odometer.at_submap(submap, self._history, camera)
            except TrackingLost:
                # Too old or not of this stream; the poses told so far stay the best ones.
                return
        if self._upcoming is None:
            return
        try:
            for observations in self._history.after(self._upcoming.reached_ns, _CATCH_UP):
                self._upcoming.advance(observations)
        except TrackingLost:
            self._upcoming = None
            return
        if self._upcoming.reached_ns == frame.stamp_ns:
            if self._active is not None:
                self.correction = self._upcoming.pose @ rigid.inverse(self._active.pose)
            self._active, self._upcoming = self._upcoming, None
            self._block, self._frames = self._block + 1, 0

    def state(self) -> dict[str, np.ndarray]:
        """Everything that is carried to the next image, as copies."""
        numbers = np.array([self._block, self._frames], np.int64)
        state = {
            "format": np.array(_FORMAT),
            "numbers": numbers,
            "correction": self.correction.copy(),
        }
        parts = {
            "corners": self._corners.state(),
            "history": self._history.state(),
            "active": {} if self._active is None else self._active.state(),
            "upcoming": {} if self._upcoming is None else self._upcoming.state(),
            "pending": {} if self._pending is None else _arrays(self._pending),
        }
        for part, arrays in parts.items():
            state |= {f"{part}.{name}": value for name, value in arrays.items()}
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on where `state` was taken; raises `ValueError` if it is another tracker's."""
        found = str(state.get("format", "nothing"))
        if found != _FORMAT:
            raise ValueError(f"the state of {found!r} does not fit a tracker of {_FORMAT!r}")
        self.reset()
        self._block, self._frames = state["numbers"].tolist()
        self.correction = state["correction"].copy()
        self._corners.restore(_part(state, "corners"))
        self._history.restore(_part(state, "history"))
        if active := _part(state, "active"):
            self._active = Odometer.restored(active)
        if upcoming := _part(state, "upcoming"):
            self._upcoming = Odometer.restored(upcoming)
        if pending := _part(state, "pending"):
            self._pending = Submap(**pending)


def _camera(submap: Submap, frame: Frame) -> np.ndarray:
    """Pinhole matrix (3, 3) of the live images: what came with them, else what the submap found,
    whose images were scaled and then cropped about the centre."""
    if frame.intrinsics is not None:
        return frame.intrinsics
    (height, width), mapped = frame.rgb.shape[:2], submap.depth.shape[1:]
    scale = max(mapped[0] / height, mapped[1] / width)
    K = submap.intrinsics[-1].copy()
    K[0, 2] += (scale * width - mapped[1]) / 2
    K[1, 2] += (scale * height - mapped[0]) / 2
    K[:2] /= scale
    return K


def _arrays(submap: Submap) -> dict[str, np.ndarray]:
    names = ("stamps_ns", "T_map_camera", "depth", "confidence", "intrinsics")
    return {name: getattr(submap, name) for name in names}


def _part(state: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """The arrays of one part, without its name."""
    start = len(part) + 1
    return {key[start:]: value for key, value in state.items() if key.startswith(part + ".")}
