"""Stand-in for the buffer of tf2_ros: the tree of frames over the recent past."""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass

import numpy as np

from scal3r_ros.nodes.base.stand_ins import tf_transformations

_DEFAULT_CACHE_NS = 10 * 10**9


class TransformException(Exception):
    """Base of everything that can go wrong with a transform."""


class LookupException(TransformException):
    """A frame is not known."""


class ConnectivityException(TransformException):
    """The two frames are not connected."""


class ExtrapolationException(TransformException):
    """The time asked for is outside what is known."""


class InvalidArgumentException(TransformException):
    """A transform or a frame name that makes no sense."""


@dataclass(frozen=True)
class _Sample:
    stamp_ns: int
    parent: str
    translation: np.ndarray
    quaternion: np.ndarray

    def matrix(self) -> np.ndarray:
        matrix = tf_transformations.quaternion_matrix(self.quaternion)
        matrix[:3, 3] = self.translation
        return matrix


class Buffer:
    """Transforms of the recent past, by child frame; answers for any pair of connected frames."""

    def __init__(self, cache_time=None, node=None) -> None:
        self._cache_ns = _DEFAULT_CACHE_NS if cache_time is None else cache_time.nanoseconds
        self._lock = threading.Lock()
        self._moving: dict[str, list[_Sample]] = {}
        self._fixed: dict[str, _Sample] = {}
        self._authority: dict[str, str] = {}
        self._node = node

    def set_transform(self, transform, authority: str) -> None:
        """Remember a transform; older than the cache by more than its length is ignored."""
        child, sample = _sample(transform)
        with self._lock:
            history = self._moving.setdefault(child, [])
            if history and sample.stamp_ns < history[-1].stamp_ns - self._cache_ns:
                return
            stamps = [s.stamp_ns for s in history]
            place = bisect.bisect_left(stamps, sample.stamp_ns)
            replaces = place < len(history) and history[place].stamp_ns == sample.stamp_ns
            history[place : place + replaces] = [sample]
            oldest = history[-1].stamp_ns - self._cache_ns
            del history[: bisect.bisect_left([s.stamp_ns for s in history], oldest)]
            self._fixed.pop(child, None)
            self._authority[child] = authority

    def set_transform_static(self, transform, authority: str) -> None:
        """Remember a transform that holds at all times."""
        child, sample = _sample(transform)
        with self._lock:
            self._moving.pop(child, None)
            self._fixed[child] = sample
            self._authority[child] = authority

    def lookup_transform(self, target_frame: str, source_frame: str, time, timeout=None):
        """TransformStamped that maps points of `source_frame` into `target_frame` at `time`.

        Time zero asks for the latest time at which all transforms on the way are known. `timeout`
        is not waited for: nobody here may block, and the library's own waiting polls.
        """
        stamp = time.nanoseconds if hasattr(time, "nanoseconds") else _nanoseconds(time)
        with self._lock:
            for frame in (target_frame, source_frame):
                self._require_known(frame)
            if stamp == 0:
                stamp = self._latest_common_time(target_frame, source_frame)
            upward, problem_up = self._chain(source_frame, stamp)
            downward, problem_down = self._chain(target_frame, stamp)
        common = next((frame for frame in upward if frame in downward), None)
        if common is None:
            raise (
                problem_up
                or problem_down
                or ConnectivityException(
                    f"Could not find a connection between '{target_frame}' and '{source_frame}' "
                    "because they are not part of the same tree."
                )
            )
        T_target_source = np.linalg.inv(downward[common]) @ upward[common]
        return _stamped(T_target_source, target_frame, source_frame, stamp)

    def can_transform(self, target_frame: str, source_frame: str, time, timeout=None) -> bool:
        """Whether `lookup_transform` would answer."""
        try:
            self.lookup_transform(target_frame, source_frame, time)
        except TransformException:
            return False
        return True

    def clear(self) -> None:
        """Forget the moving transforms; fixed ones stay, their publishers will not repeat them."""
        with self._lock:
            self._moving.clear()

    def all_frames_as_yaml(self) -> str:
        """One entry per frame that has a parent."""
        with self._lock:
            parents = {child: h[-1].parent for child, h in self._moving.items() if h}
            parents.update({child: s.parent for child, s in self._fixed.items()})
            lines = [
                f"{child}:\n  parent: '{parent}'\n  broadcaster: '{self._authority[child]}'\n"
                for child, parent in sorted(parents.items())
            ]
        return "".join(lines) or "{}"

    def _require_known(self, frame: str) -> None:
        if not frame or frame.startswith("/"):
            raise InvalidArgumentException(f"invalid frame name {frame!r}")
        parents = {s.parent for s in self._fixed.values()}
        parents |= {s.parent for h in self._moving.values() for s in h}
        if frame not in self._moving and frame not in self._fixed and frame not in parents:
            raise LookupException(f'"{frame}" passed to lookupTransform does not exist.')

    def _latest_common_time(self, target: str, source: str) -> int:
        """Newest time that every moving transform on the way has reached; 0 if all are fixed."""
        newest: list[dict[str, int]] = []
        for frame in (target, source):
            reached, path, limit = frame, {frame: 2**63 - 1}, 2**63 - 1
            while (sample := self._last(reached)) is not None:
                if reached in self._moving:
                    limit = min(limit, sample.stamp_ns)
                reached = sample.parent
                if reached in path:
                    raise ConnectivityException(f"the frames form a loop at '{reached}'")
                path[reached] = limit
            newest.append(path)
        shared = [min(limit, newest[1][f]) for f, limit in newest[0].items() if f in newest[1]]
        return shared[0] if shared and shared[0] < 2**63 - 1 else 0

    def _last(self, frame: str) -> _Sample | None:
        if frame in self._fixed:
            return self._fixed[frame]
        history = self._moving.get(frame)
        return history[-1] if history else None

    def _chain(
        self, frame: str, stamp: int
    ) -> tuple[dict[str, np.ndarray], ExtrapolationException | None]:
        """T_ancestor_frame of every ancestor that is reachable at `stamp`, and what ended the walk.

        A link that does not reach `stamp` matters only if the frames are not joined below it.
        """
        chain, T, reached = {frame: np.eye(4)}, np.eye(4), frame
        try:
            while (sample := self._at(reached, stamp)) is not None:
                T, reached = sample.matrix() @ T, sample.parent
                if reached in chain:
                    raise ConnectivityException(f"the frames form a loop at '{reached}'")
                chain[reached] = T
        except ExtrapolationException as problem:
            return chain, problem
        return chain, None

    def _at(self, frame: str, stamp: int) -> _Sample | None:
        if frame in self._fixed:
            return self._fixed[frame]
        history = self._moving.get(frame)
        if not history:
            return None
        if not history[0].stamp_ns <= stamp <= history[-1].stamp_ns:
            side = "future" if stamp > history[-1].stamp_ns else "past"
            raise ExtrapolationException(
                f"Lookup would require extrapolation into the {side}.  Requested time "
                f"{stamp / 1e9:.6f} but data of '{frame}' covers "
                f"{history[0].stamp_ns / 1e9:.6f} to {history[-1].stamp_ns / 1e9:.6f}"
            )
        place = bisect.bisect_left([s.stamp_ns for s in history], stamp)
        later = history[place]
        if later.stamp_ns == stamp or place == 0:
            return later
        return _between(history[place - 1], later, stamp)


def _sample(transform) -> tuple[str, _Sample]:
    child, parent = transform.child_frame_id.lstrip("/"), transform.header.frame_id.lstrip("/")
    if not child or not parent or child == parent:
        raise InvalidArgumentException(f"transform from {parent!r} to {child!r} makes no sense")
    t, q = transform.transform.translation, transform.transform.rotation
    translation, quaternion = np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w])
    if (
        not np.isfinite([*translation, *quaternion]).all()
        or abs(quaternion @ quaternion - 1) > 1e-3
    ):
        raise InvalidArgumentException(f"transform from {parent} to {child} is not rigid")
    return child, _Sample(_nanoseconds(transform.header.stamp), parent, translation, quaternion)


def _between(first: _Sample, second: _Sample, stamp: int) -> _Sample:
    """Straight line and shorter arc; at a change of parent the earlier one holds."""
    if first.parent != second.parent:
        return first
    share = (stamp - first.stamp_ns) / (second.stamp_ns - first.stamp_ns)
    translation = (1 - share) * first.translation + share * second.translation
    turned = tf_transformations.quaternion_slerp(first.quaternion, second.quaternion, share)
    return _Sample(stamp, first.parent, translation, turned)


def _stamped(T: np.ndarray, parent: str, child: str, stamp_ns: int):
    from geometry_msgs.msg import TransformStamped

    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = map(float, T[:3, 3])
    q.x, q.y, q.z, q.w = map(float, tf_transformations.quaternion_from_matrix(T))
    return message


def _nanoseconds(stamp) -> int:
    return stamp.sec * 10**9 + stamp.nanosec
