"""Optional inputs beside the camera: wheel odometry and gravity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import Imu

from scal3r_ros.nodes.base.conversions import pose_to_matrix, stamp_to_ns
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.input.adaptive_subscription import AdaptiveSubscription
from scal3r_ros.nodes.mapping.worker import MappingWorker
from scal3r_ros.nodes.output.transforms import NotKnownYet, Transforms


class SideInputs:
    """Subscribes to `odom` and `imu` where the configuration uses them."""

    def __init__(
        self,
        node,
        config: NodeConfig,
        transforms: Transforms,
        worker: MappingWorker,
        camera_frame: Callable[[], str],
    ) -> None:
        self._node, self._config = node, config
        self._transforms, self._worker = transforms, worker
        self._camera_frame = camera_frame
        self._mount_told = False
        self._subscriptions: list[AdaptiveSubscription] = []
        self.incompatible: list[str] = []
        """Publishers that cannot be heard, newest last."""
        if config.input.odometry or config.scale.source == "odometry":
            self._subscribe(Odometry, "odom", self._on_odometry)
        if config.map.alignment == "imu":
            self._subscribe(Imu, "imu", self._on_imu)

    def destroy(self) -> None:
        """From the executor's thread, or when it has ended."""
        for subscription in self._subscriptions:
            subscription.destroy()
        self._subscriptions = []

    def adapt(self) -> None:
        """Follow what the publishers offer; once a second, from the executor's thread."""
        for subscription in self._subscriptions:
            subscription.adapt()

    def _subscribe(self, kind: Any, topic: str, callback: Callable) -> None:
        group = MutuallyExclusiveCallbackGroup()
        qos = self._config.qos.odometry
        self._subscriptions.append(
            AdaptiveSubscription(self._node, kind, topic, callback, qos, group, self.incompatible)
        )

    def _on_odometry(self, message: Odometry) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        try:
            T_odom_base = pose_to_matrix(message.pose.pose)
        except ValueError as error:
            self._node.get_logger().warning(
                f"ignored an odometry message: {error}", throttle_duration_sec=5.0
            )
            return
        self._transforms.odometry.add(stamp_ns, T_odom_base)
        self._tell_mount(stamp_ns)
        self._worker.observe(lambda mapper: mapper.observe_odometry(stamp_ns, T_odom_base))

    def _tell_mount(self, stamp_ns: int) -> None:
        """Where the camera sits on the base, once TF knows it: scale needs the lever arm."""
        camera_frame = self._camera_frame()
        if self._mount_told or not camera_frame:
            return
        try:
            T_base_camera = self._transforms.extrinsic(camera_frame, stamp_ns)
        except NotKnownYet:
            return
        self._mount_told = True
        self._worker.observe(lambda mapper: mapper.set_camera_mount(T_base_camera))

    def _on_imu(self, message: Imu) -> None:
        """Acceleration at rest, in the camera's axes; dropped while TF does not tell how."""
        stamp_ns = stamp_to_ns(message.header.stamp)
        reading = message.linear_acceleration
        vector = np.array([reading.x, reading.y, reading.z])
        try:
            T_camera_imu = self._transforms.sensor_to_camera(
                message.header.frame_id, self._camera_frame(), stamp_ns
            )
        except NotKnownYet as missing:
            self._node.get_logger().warning(f"gravity: {missing}", throttle_duration_sec=5.0)
            return
        turned = T_camera_imu[:3, :3] @ vector
        if np.isfinite(turned).all() and np.any(turned):
            self._worker.observe(lambda mapper: mapper.observe_gravity(stamp_ns, turned))
