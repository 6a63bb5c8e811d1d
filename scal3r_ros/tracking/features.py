"""`tracking.kind: features`: corners of the live images against the newest submap.

Corners are followed all the time, and what was observed is remembered for some seconds. The first
chunk starts an odometer at its newest frame, which is replayed through what was observed since, up
to the present. Every later chunk moves it: the similarity between what it told of the chunk's
images, seconds ago, and what the chunk says of them is applied to everything that it knows. After a
loss the camera is found again by what remembered corners look like, or by a chunk from after it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.records import Frame
from scal3r_ros.tracking.anchoring import Disagreement, similarity_to_map
from scal3r_ros.tracking.corners import Corners, Observations
from scal3r_ros.tracking.history import History
from scal3r_ros.tracking.interface import Submap, TrackerFrame, TrackingLost
from scal3r_ros.tracking.known_corners import KnownCorners
from scal3r_ros.tracking.landmarks import depth_along, rays_of
from scal3r_ros.tracking.odometer import Odometer
from scal3r_ros.tracking.resection import TooFewPoints, resect_anywhere
from scal3r_ros.tracking.window import Places

_CATCH_UP = 8
"""Remembered images replayed per live one."""
_SPREAD = 24
"""Images that a replay takes; longer times are thinned to so many."""
_MOST_LEFT_OUT = 3
"""Images between two that are replayed, at most: corners must last from one to the next."""
_SHARED = 3
"""Images that a chunk must have in common with what was told."""
_FORMAT = "features 2"


class FeatureTracker:
    """Needs an anchor before it can say anything; works with every reconstructor."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next image is the first."""
        self._corners, self._history = Corners(), History()
        self._pending: Submap | None = None
        self._block, self._frames = 0, 0
        self.leave_map()

    def leave_map(self) -> None:
        """The map is another one: poses are told again from the next anchor on."""
        self._active: Odometer | None = None
        self._upcoming: Odometer | None = None
        self._pending = None
        self._known = KnownCorners()
        self._lost = "no mapped chunk has been followed up to the present yet"
        self.anchored_ns = self._upcoming_ns = -1
        self.correction = np.eye(4)

    def anchor(self, submap: Submap) -> None:
        """Follow this submap from the next image on. Of several the newest counts."""
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
        self._follow(observations)
        self._take_submap(frame)
        self._catch_up(frame)
        if self._lost or self._active is None:
            raise TrackingLost(self._lost)
        self._frames += 1
        return TrackerFrame(self._active.pose.copy(), self._block, self._frames - 1, 1.0)

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

    def _follow(self, observations: Observations) -> None:
        """Move on with the active odometer, or find the camera again."""
        if self._active is None:
            return
        try:
            self._active.advance(observations)
            self._lost = ""
        except TrackingLost as lost:
            self._lost = str(lost)
            self._recognise(self._active, observations)
        if not self._lost and self._active.at_key:
            self._remember(self._active)

    def _remember(self, odometer: Odometer) -> None:
        """Where the corners of the newest image are, and what they look like."""
        seen, described = self._history.newest, self._corners.described()
        ids = seen.ids[described.rows]
        mine, placed = odometer.places.of(ids)
        points = odometer.places.points[placed]
        self._known.remember(ids[mine], points, described.descriptors[mine])

    def _recognise(self, odometer: Odometer, observations: Observations) -> None:
        """Go on from remembered corners that the image shows again, if enough of them agree."""
        described = self._corners.described()
        rows, ids, points = self._known.recognise(described.descriptors)
        rows, K = described.rows[rows], odometer.camera
        try:
            found = resect_anywhere(points, rays_of(observations.pixels[rows], K), K[0, 0])
        except TooFewPoints:
            return
        rows, ids, points = (x[found.inliers] for x in (rows, ids, points))
        others = np.setdiff1d(np.arange(len(observations.ids)), rows)
        free = ~np.isin(ids, observations.ids[others])
        rows, ids, points = rows[free], ids[free], points[free]
        self._corners.rename(rows, ids)
        observations = observations.renamed(rows, ids)
        self._history.replace_newest(observations)
        order = np.argsort(ids)
        places = Places(ids[order], points[order], np.ones(len(ids)))
        odometer.begin_again(observations, found.T_map_camera, places)
        self._lost = ""

    def _take_submap(self, frame: Frame) -> None:
        """Move to a new submap, or start at it where nothing was told of its images."""
        if self._pending is None:
            return
        submap, self._pending = self._pending, None
        if self._active is not None and not self._is_behind(self._active, submap):
            try:
                self._move(self._active, submap)
                return
            except Disagreement:
                pass  # what the chunk says counts: start at it
        try:
            self._upcoming = Odometer.at_submap(submap, self._history, _camera(submap, frame))
            self._upcoming_ns = int(submap.stamps_ns[-1])
        except TrackingLost:
            return  # too old or not of this stream; what is told so far stays the best

    def _is_behind(self, odometer: Odometer, submap: Submap) -> bool:
        """Whether it is lost, and the submap shows images from after that."""
        return bool(self._lost) and odometer.path.newest_ns < submap.stamps_ns[-1]

    def _move(self, odometer: Odometer, submap: Submap) -> None:
        """Raises `Disagreement`."""
        told = odometer.path.shared_with(submap.stamps_ns)
        rows = list(told)
        if len(rows) < _SHARED:
            raise Disagreement("the chunk shows no images that were tracked")
        S = similarity_to_map(
            submap.T_map_camera[rows],
            np.stack(list(told.values())),
            self._depth_ratios(submap, told, odometer.camera),
            submap.typical_depth,
        )
        before = odometer.pose
        odometer.move(S)
        self._known.move(S)
        self.correction = odometer.pose @ rigid.inverse(before)
        self.anchored_ns = int(submap.stamps_ns[rows[-1]])
        self._upcoming = None

    def _depth_ratios(
        self, submap: Submap, told: Mapping[int, np.ndarray], K: np.ndarray
    ) -> np.ndarray:
        """Mapped over told depth of remembered corners in the images at rows of `submap`."""
        ratios = [np.zeros(0)]
        for row, pose in told.items():
            observations = self._history.at(int(submap.stamps_ns[row]))
            if observations is None:
                continue
            mine, points = self._known.places(observations.ids)
            depth = (points - pose[:3, 3]) @ pose[:3, 2]
            mapped = depth_along(submap, row, rays_of(observations.pixels[mine], K))
            good = (depth > 0) & np.isfinite(mapped)
            ratios.append(mapped[good] / depth[good])
        return np.concatenate(ratios)

    def _catch_up(self, frame: Frame) -> None:
        """Replay some remembered images; at the present the upcoming odometer takes over."""
        if self._upcoming is None:
            return
        due = self._history.thinned_after(self._upcoming.reached_ns, _SPREAD, _MOST_LEFT_OUT)
        try:
            for observations in due[:_CATCH_UP]:
                self._upcoming.advance(observations)
        except TrackingLost:
            self._upcoming = None
            return
        if self._upcoming.reached_ns == frame.stamp_ns:
            if self._active is not None and not self._lost:
                self.correction = self._upcoming.pose @ rigid.inverse(self._active.pose)
            self._active, self._upcoming, self._lost = self._upcoming, None, ""
            self._known, self.anchored_ns = KnownCorners(), self._upcoming_ns
            self._remember(self._active)
            self._block, self._frames = self._block + 1, 0

    def state(self) -> dict[str, np.ndarray]:
        """Everything that is carried to the next image, as copies."""
        numbers = [self._block, self._frames, self.anchored_ns, self._upcoming_ns]
        state = {
            "format": np.array(_FORMAT),
            "numbers": np.array(numbers, np.int64),
            "lost": np.array(self._lost),
            "correction": self.correction.copy(),
        }
        parts = {
            "corners": self._corners.state(),
            "history": self._history.state(),
            "known": self._known.state(),
            "active": {} if self._active is None else self._active.state(),
            "upcoming": {} if self._upcoming is None else self._upcoming.state(),
            "pending": {} if self._pending is None else self._pending.arrays(),
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
        self._block, self._frames, self.anchored_ns, self._upcoming_ns = state["numbers"].tolist()
        self._lost, self.correction = str(state["lost"]), state["correction"].copy()
        self._corners.restore(_part(state, "corners"))
        self._history.restore(_part(state, "history"))
        self._known.restore(_part(state, "known"))
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


def _part(state: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """The arrays of one part, without its name."""
    start = len(part) + 1
    return {key[start:]: value for key, value in state.items() if key.startswith(part + ".")}
