"""`tracking.kind: mem3r | cut3r`: what a recurrent network tells of every image, tied to the map.

The network counts poses from its first image, in a scale of its own, in blocks that are chained.
The similarity to the map comes from the images that both a chunk and the network have told of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import Frame
from scal3r_ros.tracking.anchoring import Disagreement, similarity_to_map
from scal3r_ros.tracking.block_chain import TRUSTED_RATIO, BlockChain, depth_ratio
from scal3r_ros.tracking.interface import Submap, TrackerFrame, TrackingLost
from scal3r_ros.tracking.recurrent import RecurrentTracker
from scal3r_ros.tracking.told_path import ToldPath

_SHARED = 3
"""Images that a chunk must have in common with what was told."""


class RecurrentLiveTracker:
    """A `LiveTracker` around a network; its blocks end after `block_length` images."""

    def __init__(self, tracker: RecurrentTracker, block_length: int = 100) -> None:
        self._tracker, self._block_length = tracker, block_length
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next image is the first."""
        self._tracker.reset()
        self._begin_stream()

    def _begin_stream(self) -> None:
        self._chain, self._path = BlockChain(correct_scale=True), ToldPath()
        self._size: tuple[int, ...] = ()
        self._frames = 0
        self.leave_map()

    def leave_map(self) -> None:
        """The map is another one: poses are told again from the next anchor on."""
        self._S_map_chain: Sim3 | None = None
        self._pending: Submap | None = None
        self._lost = "no mapped chunk has been compared with the network's poses yet"
        self.anchored_ns = -1
        self.correction = np.eye(4)

    def anchor(self, submap: Submap) -> None:
        """Tell poses in the coordinates of this submap from the next image on."""
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
        told = self._told(frame)
        pose = self._chain.place(told.T_block_camera)
        self._path.add(frame.stamp_ns, pose)
        if self._pending is not None:
            submap, self._pending = self._pending, None
            self._take_submap(submap, pose)
        if self._S_map_chain is None:
            raise TrackingLost(self._lost)
        return replace(told, T_block_camera=self._S_map_chain.move_pose(pose))

    def _check_stream(self, frame: Frame) -> None:
        """Another image size or a step back in time begins a new stream."""
        size = frame.rgb.shape[:2]
        if self._size in ((), size) and frame.stamp_ns > self._path.newest_ns:
            self._size = size
            return
        resized = self._size not in ((), size)
        why = f"image size changed to {size[1]}x{size[0]}" if resized else "stamps went back"
        self.reset()
        self._size = size
        raise TrackingLost(f"{why}; the next chunk starts tracking again")

    def _told(self, frame: Frame) -> TrackerFrame:
        """The network's answer; at the end of a block that of the block before, and the next image
        is in the new one."""
        self._frames += 1
        if self._frames < self._block_length:
            return self._tracker.step(frame)
        self._frames = 1
        last, again = self._tracker.turn_over(frame)
        self._chain.end_block(last.T_block_camera, _scale_ratio(last, again))
        return replace(again, T_block_camera=np.eye(4))

    def _take_submap(self, submap: Submap, pose: np.ndarray) -> None:
        told = self._path.shared_with(submap.stamps_ns)
        rows = list(told)
        before = self._S_map_chain
        try:
            if len(rows) < _SHARED:
                raise Disagreement("the newest chunk shows no images that were tracked")
            known = np.stack(list(told.values()))
            # A network's scale is any number: bring it near before it is compared.
            ways = [np.ptp(T[:, :3, 3], axis=0).max() for T in (submap.T_map_camera[rows], known)]
            near = Sim3(np.array(ways[0] / max(ways[1], 1e-12) or 1.0), np.eye(3), np.zeros(3))
            S = similarity_to_map(
                submap.T_map_camera[rows], near.move_pose(known), np.zeros(0), submap.typical_depth
            )
        except Disagreement as problem:
            self._S_map_chain, self._lost = None, f"{problem}; the next chunk is compared again"
            return
        self._S_map_chain = S @ near
        self.anchored_ns = int(submap.stamps_ns[rows[-1]])
        if before is not None:
            now, then = self._S_map_chain.move_pose(pose), before.move_pose(pose)
            self.correction = now @ rigid.inverse(then)

    def state(self) -> dict[str, np.ndarray]:
        """Everything that is carried to the next image, as copies."""
        state = {f"network.{name}": value for name, value in self._tracker.state().items()}
        state |= {f"path.{name}": value for name, value in self._path.state().items()}
        chain = self._chain
        state["chain"] = np.concatenate([chain.base.ravel(), [chain.scale, chain.block_id]])
        state["numbers"] = np.array([self._frames, self.anchored_ns, *self._size], np.int64)
        state["lost"], state["correction"] = np.array(self._lost), self.correction.copy()
        if self._S_map_chain is not None:
            S = self._S_map_chain
            state["to_map"] = np.concatenate([[S.scale], S.rotation.ravel(), S.translation])
        if self._pending is not None:
            state |= {f"pending.{name}": value for name, value in self._pending.arrays().items()}
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on where `state` was taken; raises `ValueError` if it is another tracker's."""
        self._tracker.restore(_part(state, "network"))
        self._begin_stream()
        self._path = ToldPath.restored(_part(state, "path"))
        self._chain.base = state["chain"][:16].reshape(4, 4).copy()
        self._chain.scale, self._chain.block_id = float(state["chain"][16]), int(state["chain"][17])
        self._frames, self.anchored_ns, *size = state["numbers"].tolist()
        self._size = tuple(size)
        self._lost, self.correction = str(state["lost"]), state["correction"].copy()
        if "to_map" in state:
            values = state["to_map"]
            self._S_map_chain = Sim3(values[0], values[1:10].reshape(3, 3), values[10:].copy())
        if pending := _part(state, "pending"):
            self._pending = Submap(**pending)


def _scale_ratio(last: TrackerFrame, again: TrackerFrame) -> float:
    """Of two blocks, from the depths that both give to the image they share; 1 where that says
    nothing."""
    if last.points is None or again.points is None:
        return 1.0
    if last.confidence is None or again.confidence is None:
        return 1.0
    depths = last.points[..., 2], again.points[..., 2]
    try:
        ratio = depth_ratio(*depths, last.confidence, again.confidence)
    except ValueError:
        return 1.0
    return ratio if TRUSTED_RATIO[0] < ratio < TRUSTED_RATIO[1] else 1.0


def _part(state: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    start = len(part) + 1
    return {key[start:]: value for key, value in state.items() if key.startswith(part + ".")}
