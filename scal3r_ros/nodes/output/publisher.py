"""The thread that turns map updates into messages, so that neither the callbacks nor the network
wait for it. Large clouds leave in slices, between which the callbacks get their turn."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scal3r_ros import rigid
from scal3r_ros.nodes.base.conversions import (
    cloud_message,
    odometry_message,
    pose_message,
)
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.input.image_conversions import depth_to_image, pinhole_camera_info
from scal3r_ros.nodes.output.floor_output import FloorOutput, FloorView
from scal3r_ros.nodes.output.markers import graph_markers
from scal3r_ros.nodes.output.path_bytes import path_bytes
from scal3r_ros.nodes.output.publishers import Publishers
from scal3r_ros.nodes.output.tf_modes import map_to_base
from scal3r_ros.nodes.output.trajectory_message import trajectory_message
from scal3r_ros.nodes.output.transforms import ROBOT_MODES, NotKnownYet, Transforms
from scal3r_ros.nodes.output.visual_odometry import UNKNOWN, OdometryStep, VisualOdometry
from scal3r_ros.pipeline.localisation import Whereabouts
from scal3r_ros.records import MapUpdate, ScaleEstimate, TrajectoryPose

UNCONNECTED = (
    "the newest frames have no known relation to the rest of the map (a gap, or a failed "
    "alignment); transforms resume when a loop connects them: revisit a place that is mapped"
)
PAUSE = 0.0005
"""Seconds between two slices, in which waiting callbacks run."""


@dataclass(frozen=True)
class DepthView:
    """Depth of one frame, in map units."""

    stamp_ns: int
    depth: np.ndarray
    """(H, W) float32, NaN where unknown."""
    confidence: np.ndarray
    """(H, W) float32, larger is better, 0 where depth is unknown."""
    intrinsics: np.ndarray
    """(3, 3), our pixel rule."""


@dataclass(frozen=True)
class Publication:
    """Everything that one step of the worker has to say; arrays belong to the publisher."""

    map_revision: int
    updates: tuple[MapUpdate, ...] = ()
    camera_frame: str = ""
    trajectory: tuple[TrajectoryPose, ...] | None = None
    """Poses for the path: the newest, or all."""
    cloud: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    """The whole map: points, colours, confidence."""
    graph: tuple[np.ndarray, list, list] | None = None
    """Node positions, chain edges, loop edges."""
    depth: DepthView | None = None
    floor: FloorView | None = None
    replaced: bool = False
    """The map is another one, so relations to the old one end."""
    connected: bool = True
    """False while the newest chunks have no known relation to the map's origin."""
    whereabouts: Whereabouts | None = None
    """In mode localisation, what is known of the camera's place."""


def in_metres(covariance: np.ndarray, scale: ScaleEstimate) -> np.ndarray:
    """Covariance (6, 6) as standard messages mean it, of metres: while map units are none, how far
    anything is from anything is unknown, and only directions are as good as they look."""
    if scale.frozen:
        return covariance
    return covariance + np.diag([UNKNOWN] * 3 + [0.0] * 3)


class MapPublisher:
    """Publishes in the order of `put`; bounded, so that a slow network slows the worker."""

    def __init__(
        self,
        config: NodeConfig,
        run_id: str,
        publishers: Publishers,
        transforms: Transforms,
        stream_now: Callable[[], int],
        logger,
        floor: FloorOutput,
    ) -> None:
        self._floor = floor
        self.config, self.run_id = config, run_id
        self.publishers, self.transforms = publishers, transforms
        self.odometry = VisualOdometry()
        self.latency: deque[float] = deque(maxlen=100)
        """Seconds from the newest image of a chunk to its pose, of the last chunks."""
        self._stream_now, self._logger = stream_now, logger
        self._waiting: queue.Queue[Publication] = queue.Queue(maxsize=4)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, publication: Publication) -> None:
        """Hand over; waits while four are waiting, unless the publisher is being stopped."""
        while not self._stopping.is_set():
            try:
                self._waiting.put(publication, timeout=0.1)
                return
            except queue.Full:
                continue

    def stop(self, timeout: float) -> bool:
        """End the thread; False if it is still publishing after `timeout` seconds."""
        self._stopping.set()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                publication = self._waiting.get(timeout=0.1)
            except queue.Empty:
                continue
            try:
                self._publish(publication)
            except Exception:  # the thread's border: one bad message must not end all others
                self._logger.error(
                    f"publishing failed:\n{traceback.format_exc()}", throttle_duration_sec=5.0
                )
            finally:
                self._waiting.task_done()

    def _publish(self, item: Publication) -> None:
        if item.replaced:
            self.odometry.reset()
            self.transforms.reset()
            self._floor.forget()
        if item.whereabouts is not None and not item.connected:
            self._tell_lost(item.whereabouts, item)
        for update in item.updates:
            self._publish_update(update, item)
        if item.trajectory is not None:
            self._publish_path(item.trajectory)
        if item.graph is not None:
            newest = item.trajectory[-1].stamp_ns if item.trajectory else 0
            self.publishers.graph.publish(graph_markers(*item.graph, self.config.tf.map, newest))
        if item.depth is not None:
            self._publish_depth(item.depth, item.camera_frame)
        if item.floor is not None:
            newest = item.trajectory[-1].stamp_ns if item.trajectory else 0
            self._floor.publish(item.floor, newest)
        if item.cloud is not None:
            self._publish_map(item.cloud, item.trajectory or ())

    def _publish_update(self, update: MapUpdate, item: Publication) -> None:
        """Poses first, points after them: who hears of a point can place the camera that saw it."""
        poses = sorted(update.poses, key=lambda pose: pose.frame_id)
        steps = self.odometry.extend(poses, update.chunk_index, update.scale.applied)
        if poses:
            newest = poses[-1]
            self.latency.append(max(self._stream_now() - newest.stamp_ns, 0) * 1e-9)
            if item.connected:
                self.transforms.update(
                    poses, steps, item.camera_frame, update.scale, self._stream_now()
                )
            else:
                self.transforms.pause(UNCONNECTED)
            self.publishers.trajectory.publish(
                trajectory_message(
                    update, poses, self.config.tf.map, item.camera_frame, self.run_id
                )
            )
            self._publish_pose(newest, item.camera_frame, update.scale)
            if item.connected and not self.transforms.live_ns:
                self._publish_odometry(steps, item.camera_frame, update.scale)
            self._publish_cloud(update, newest.stamp_ns)

    def _tell_lost(self, known: Whereabouts, item: Publication) -> None:
        """Nothing goes to /tf; `~/pose` tells the last pose that was believed, as sure as it is."""
        self.transforms.pause(f"the camera is lost in the map: {known.reason}")
        if known.T_map_camera is not None and item.updates:
            pose = TrajectoryPose(
                0, known.stamp_ns, known.T_map_camera, known.covariance_at(known.stamp_ns), 0.0,
                0, True,
            )  # fmt: skip
            self._publish_pose(pose, item.camera_frame, item.updates[-1].scale)

    def _publish_pose(self, pose: TrajectoryPose, camera_frame: str, scale: ScaleEstimate) -> None:
        """The pose of the robot's base in modes that have one, else of the camera. While the
        camera's place on the base or the scale is unknown, no pose is published."""
        T, covariance = pose.T_map_camera, pose.covariance
        if self.config.tf.mode in ROBOT_MODES:
            try:
                self.transforms.check_units(scale, camera_frame, pose.stamp_ns)
                T_base_camera = self.transforms.extrinsic(camera_frame, pose.stamp_ns)
            except NotKnownYet:
                return  # said by /diagnostics, because nothing goes to /tf for the same reason
            T = map_to_base(T, T_base_camera)
            covariance = rigid.carried(covariance, T[:3, 3] - pose.T_map_camera[:3, 3])
        covariance = in_metres(covariance, scale)
        self.publishers.pose.publish(pose_message(T, covariance, self.config.tf.map, pose.stamp_ns))

    def _publish_odometry(
        self, steps: Sequence[OdometryStep], camera_frame: str, scale: ScaleEstimate
    ) -> None:
        for step in steps:
            self.publishers.odometry.publish(
                odometry_message(
                    step.T_odom_camera,
                    in_metres(step.covariance, scale),
                    step.velocity,
                    in_metres(step.velocity_covariance, scale),
                    self.config.tf.visual_odom,
                    camera_frame,
                    step.stamp_ns,
                )
            )

    def _publish_path(self, trajectory: Sequence[TrajectoryPose]) -> None:
        poses = np.array([pose.T_map_camera for pose in trajectory]).reshape(-1, 4, 4)
        stamps = [pose.stamp_ns for pose in trajectory]
        self.publishers.path.publish(path_bytes(poses, stamps, self.config.tf.map))

    def _publish_cloud(self, update: MapUpdate, stamp_ns: int) -> None:
        size = self.config.publish.slice_points
        for start in range(0, len(update.points), size):
            part = slice(start, start + size)
            self.publishers.cloud.publish(
                cloud_message(
                    update.points[part],
                    update.colors[part],
                    update.confidence[part],
                    self.config.tf.map,
                    stamp_ns,
                )
            )
            time.sleep(PAUSE)

    def _publish_map(
        self,
        cloud: tuple[np.ndarray, np.ndarray, np.ndarray],
        trajectory: Sequence[TrajectoryPose],
    ) -> None:
        newest = trajectory[-1].stamp_ns if trajectory else 0
        self.publishers.map.publish(cloud_message(*cloud, self.config.tf.map, newest))

    def _publish_depth(self, view: DepthView, camera_frame: str) -> None:
        height, width = view.depth.shape
        K = np.array(view.intrinsics, dtype=np.float64)
        K[:2, 2] -= 0.5
        self.publishers.depth.publish(depth_to_image(view.depth, camera_frame, view.stamp_ns))
        self.publishers.confidence.publish(
            depth_to_image(view.confidence, camera_frame, view.stamp_ns)
        )
        self.publishers.depth_info.publish(
            pinhole_camera_info(K, width, height, camera_frame, view.stamp_ns)
        )
