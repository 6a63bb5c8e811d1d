"""Broadcasts the transforms of `tf.mode`, and looks up those that others publish.

Nothing leaves before everything that it depends on is known: the extrinsic base to camera, the
odometry at the stamp of the image, the metric scale, and that nobody else owns the child frame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from rclpy.duration import Duration
from rclpy.time import Time

from scal3r_ros import rigid
from scal3r_ros.nodes.base.conversions import (
    frame_name,
    matrix_to_transform,
    stamp_to_ns,
    transform_to_matrix,
)
from scal3r_ros.nodes.base.node_config import TfConfig
from scal3r_ros.nodes.base.ros_compat import (
    Buffer,
    TransformBroadcaster,
    TransformException,
    TransformListener,
)
from scal3r_ros.nodes.base.trouble import InputTrouble
from scal3r_ros.nodes.output.tf_modes import (
    Edge,
    average,
    broadcast_edges,
    map_to_base,
    map_to_odom,
    other_parent,
    slew,
)
from scal3r_ros.nodes.output.visual_odometry import OdometryStep
from scal3r_ros.records import ScaleEstimate, TrajectoryPose

FOREIGN_SECONDS = 5.0
"""How long a foreign parent that is heard no more still keeps us from broadcasting."""
ROBOT_MODES = ("map_to_odom", "map_to_base")


class NotKnownYet(RuntimeError):
    """Something that a transform depends on is missing; the message says what to provide."""


class WatchedBuffer(Buffer):
    """Takes only transforms that make sense, each for itself; and remembers every parent that a
    frame is given, where a buffer itself only knows the last one."""

    def __init__(self, trouble: InputTrouble, *args, **kwargs) -> None:
        self._take = trouble.guarded("tf", self._checked)
        self._heard: dict[str, dict[str, float]] = {}
        super().__init__(*args, **kwargs)

    def set_transform(self, transform, authority) -> None:
        until = time.monotonic() + FOREIGN_SECONDS
        self._take(transform, authority, super().set_transform, until)

    def set_transform_static(self, transform, authority) -> None:
        self._take(transform, authority, super().set_transform_static, float("inf"))

    def _checked(self, transform, authority, pass_on: Callable, until: float) -> None:
        parent = frame_name(transform.header.frame_id)
        child = frame_name(transform.child_frame_id)
        if not parent or not child or parent == child:
            raise ValueError(f"a transform from {parent!r} to {child!r} makes no sense")
        if stamp_to_ns(transform.header.stamp) < 0:
            raise ValueError(f"the transform from {parent} to {child} has a negative time stamp")
        transform_to_matrix(transform)
        self._note(transform, until)
        pass_on(transform, authority)

    def parents(self, child: str) -> set[str]:
        """Parents of a frame that were heard lately, or for good from a static publisher."""
        now = time.monotonic()
        heard = list(self._heard.get(child, {}).items())
        return {parent for parent, until in heard if until > now}

    def _note(self, transform, until: float) -> None:
        parents = self._heard.setdefault(frame_name(transform.child_frame_id), {})
        parent = frame_name(transform.header.frame_id)
        parents[parent] = max(until, parents.get(parent, 0.0))


class Transforms:
    """`update` after every chunk, from any thread; `rebroadcast` from a timer."""

    def __init__(self, node, config: TfConfig) -> None:
        self.config = config
        self.problem = ""
        """Why nothing is broadcast; empty when all is well."""
        self.refused = False
        """True if another publisher owns the child frame."""
        self.odometry = rigid.PoseBuffer(span_ns=int(config.buffer * 1e9))
        self.trouble = InputTrouble(node.get_logger())
        self._lock = threading.Lock()
        self._buffer = WatchedBuffer(
            self.trouble, cache_time=Duration(seconds=config.buffer), node=node
        )
        self._listener = TransformListener(self._buffer, node, spin_thread=False)
        self._broadcaster = TransformBroadcaster(node) if config.mode != "none" else None
        self._node = node
        self.live_ns = 0
        """Stamp of the newest pose that `live` has broadcast; 0 without one. What chunks say of
        earlier images is not broadcast: it would contradict what was."""
        self.reset()

    def reset(self) -> None:
        """The map is another one: its frame has no relation to the old one."""
        with self._lock:
            self._T_map_odom: np.ndarray | None = None
            self._target: np.ndarray | None = None
            self._T_odom_base = np.eye(4)
            self._last_stamp = 0
            self._applied = 1.0
        self.live_ns = 0

    def clear(self) -> None:
        """Time has jumped back: what was heard belongs to another time."""
        self._buffer.clear()
        self.odometry.clear()
        with self._lock:
            self._last_stamp = 0
        self.live_ns = 0

    def destroy(self) -> None:
        """Stop listening and broadcasting; from the executor's thread or when it has ended."""
        self._listener.unregister()
        if self._broadcaster is not None:
            self._node.destroy_publisher(self._broadcaster.pub_tf)

    @property
    def repeating(self) -> bool:
        """Whether map to odom is known, and so repeated."""
        return self._T_map_odom is not None and not self.refused

    @property
    def correction(self) -> tuple[float, float]:
        """What is left of the last correction while slewing: metres, radians."""
        with self._lock:
            if self._target is None or self._T_map_odom is None:
                return 0.0, 0.0
            rest = rigid.inverse(self._T_map_odom) @ self._target
        turn = np.arccos(np.clip((np.trace(rest[:3, :3]) - 1) / 2, -1, 1))
        return float(np.linalg.norm(rest[:3, 3])), float(turn)

    def extrinsic(self, camera_frame: str, stamp_ns: int) -> np.ndarray:
        """T_base_camera at a stamp; raises `NotKnownYet`."""
        return self._lookup(self.config.base, camera_frame, stamp_ns)

    def sensor_to_camera(self, sensor_frame: str, camera_frame: str, stamp_ns: int) -> np.ndarray:
        """T_camera_sensor at a stamp; raises `NotKnownYet`."""
        return self._lookup(camera_frame, sensor_frame, stamp_ns)

    def update(
        self,
        poses: Sequence[TrajectoryPose],
        steps: Sequence[OdometryStep],
        camera_frame: str,
        scale: ScaleEstimate,
        stream_now_ns: int,
    ) -> None:
        """Take the newest poses (oldest first) of the map and broadcast what they say."""
        if self.config.mode == "none" or not poses:
            return
        if not self.check_parents(camera_frame):
            return
        self._place_odometry(poses, steps)
        try:
            self.check_units(scale, camera_frame, poses[-1].stamp_ns)
            getattr(self, f"_{self.config.mode}")(poses, steps, camera_frame, stream_now_ns)
            self.problem = ""
        except NotKnownYet as missing:
            self.problem = str(missing)

    def _place_odometry(
        self, poses: Sequence[TrajectoryPose], steps: Sequence[OdometryStep]
    ) -> None:
        """Where the frame of `~/odometry` lies in the map, if the tree does not tell already. That
        is the same for all frames of a chunk, so it is said at both ends."""
        edge = Edge(self.config.map, self.config.visual_odom)
        if edge.child == self.config.odom:
            return
        known = {pose.stamp_ns: pose.T_map_camera for pose in poses}
        for step in {step.stamp_ns: step for step in (*steps[:1], *steps[-1:])}.values():
            T_map_odom = known[step.stamp_ns] @ rigid.inverse(step.T_odom_camera)
            self._send(edge, T_map_odom, step.stamp_ns)

    def live(
        self, T_map_camera: np.ndarray, camera_frame: str, scale: ScaleEstimate, stamp_ns: int
    ) -> bool:
        """Broadcast a provisional pose of one image; False where something it depends on is
        missing, which `problem` tells."""
        if self.config.mode == "none":
            return True
        if self.refused:
            return False
        try:
            self.check_units(scale, camera_frame, stamp_ns)
            for edge in broadcast_edges(self.config, camera_frame):
                T = T_map_camera
                if edge.child == self.config.base:
                    T = map_to_base(T, self.extrinsic(camera_frame, stamp_ns))
                self._send(edge, T, stamp_ns)
        except NotKnownYet as missing:
            self.problem = str(missing)
            return False
        self.live_ns = stamp_ns
        return True

    def check_units(self, scale: ScaleEstimate, camera_frame: str, stamp_ns: int) -> None:
        """A base is metres away from its camera: raises `NotKnownYet` where poses are not in
        metres and the user insists on them. Without the extrinsic odometry gives no scale either,
        so that is named first."""
        self._follow(scale.applied)
        if self.config.mode not in ROBOT_MODES or not self.config.require_scale or scale.frozen:
            return
        self.extrinsic(camera_frame, stamp_ns)
        what = "is measured, but not well enough yet" if scale.known else "is unknown"
        raise NotKnownYet(
            f"the map has no metric scale, it {what}; set scale.source, or tf.require_scale to "
            "false"
        )

    def _follow(self, applied: float) -> None:
        """When the map was rescaled, what is on its way to an old target is in old units."""
        with self._lock:
            if applied != self._applied:
                self._applied = applied
                self._T_map_odom = self._target = None

    def pause(self, reason: str) -> None:
        """Broadcast nothing: the camera's place in the map is not known."""
        self.problem = reason
        self.reset()

    def check_parents(self, camera_frame: str) -> bool:
        """Refuse frames that somebody else publishes; a frame has one parent."""
        for edge in broadcast_edges(self.config, camera_frame):
            other = other_parent(edge, self._buffer.parents(edge.child))
            if other is not None:
                self.refused = True
                self.problem = (
                    f"{edge.child} already has the parent {other}; choose another tf.mode or stop "
                    f"the other publisher"
                )
                return False
        if self.refused:
            self.refused, self.problem = False, ""
        return True

    def rebroadcast(self, stream_now_ns: int, seconds: float) -> None:
        """Repeat map to odom for consumers between two chunks, `seconds` after the last time."""
        with self._lock:
            if self._T_map_odom is None or self._target is None or self.refused:
                return
            stamp_ns = stream_now_ns + int(self.config.tolerance * 1e9)
            if stamp_ns <= self._last_stamp:
                return
            if self.config.correction == "slew":
                self._T_map_odom = slew(
                    self._T_map_odom, self._target, self._T_odom_base, seconds, self.config
                )
            self._last_stamp = stamp_ns
            self._send(Edge(self.config.map, self.config.odom), self._T_map_odom, stamp_ns)

    def _map_to_camera(self, poses, steps, camera_frame: str, stream_now_ns: int) -> None:
        if poses[-1].stamp_ns <= self.live_ns:
            return
        edge = Edge(self.config.map, camera_frame)
        self._send(edge, poses[-1].T_map_camera, poses[-1].stamp_ns)

    def _map_to_base(self, poses, steps, camera_frame: str, stream_now_ns: int) -> None:
        newest = poses[-1]
        T_base_camera = self.extrinsic(camera_frame, newest.stamp_ns)
        if newest.stamp_ns <= self.live_ns:
            return
        T_map_base = map_to_base(newest.T_map_camera, T_base_camera)
        self._send(Edge(self.config.map, self.config.base), T_map_base, newest.stamp_ns)

    def _map_to_odom(self, poses, steps, camera_frame: str, stream_now_ns: int) -> None:
        if self.config.odometry == "visual":
            self._broadcast_visual(steps, camera_frame)
        corrections, weights, T_odom_base = [], [], None
        for pose in poses[-self.config.average :]:
            try:
                T_base_camera = self.extrinsic(camera_frame, pose.stamp_ns)
                T_odom_base = self._odometry_at(pose.stamp_ns, steps, T_base_camera)
            except NotKnownYet as missing:
                reason = missing
                continue
            corrections.append(
                map_to_odom(map_to_base(pose.T_map_camera, T_base_camera), T_odom_base)
            )
            weights.append(max(pose.confidence, 0.0))
        if T_odom_base is None:
            raise reason
        with self._lock:
            target = self._target = average(corrections, weights)
            self._T_odom_base = T_odom_base
            first = self._T_map_odom is None
            if first or self.config.correction == "jump":
                self._T_map_odom = target
            if first:
                self._send(Edge(self.config.map, self.config.odom), target, poses[-1].stamp_ns)
                self._last_stamp = poses[-1].stamp_ns
        self.rebroadcast(stream_now_ns, 0.0)

    def _odometry_at(self, stamp_ns: int, steps, T_base_camera: np.ndarray) -> np.ndarray:
        if self.config.odometry == "visual":
            known = {step.stamp_ns: step for step in steps}
            if stamp_ns not in known:
                raise NotKnownYet("visual odometry has no pose for the newest frames")
            return map_to_base(known[stamp_ns].T_odom_camera, T_base_camera)
        from_topic = self.odometry.at(stamp_ns)
        if from_topic is not None:
            return from_topic
        return self._lookup(self.config.odom, self.config.base, stamp_ns)

    def _broadcast_visual(self, steps: Sequence[OdometryStep], camera_frame: str) -> None:
        edge = Edge(self.config.odom, self.config.base)
        for step in steps:
            T_base_camera = self.extrinsic(camera_frame, step.stamp_ns)
            self._send(edge, map_to_base(step.T_odom_camera, T_base_camera), step.stamp_ns)

    def _lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
            return transform_to_matrix(found)
        except TransformException as error:
            raise NotKnownYet(f"no transform {target} <- {source} on /tf: {error}") from error

    def _send(self, edge: Edge, T: np.ndarray, stamp_ns: int) -> None:
        assert self._broadcaster is not None, "mode none broadcasts nothing"
        self._broadcaster.sendTransform(matrix_to_transform(T, edge.parent, edge.child, stamp_ns))
