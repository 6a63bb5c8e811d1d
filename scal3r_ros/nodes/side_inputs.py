"""Optional inputs beside the camera: wheel odometry and gravity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from scal3r_ros.nodes.conversions import pose_to_matrix, stamp_to_ns
from scal3r_ros.nodes.image_input import input_qos
from scal3r_ros.nodes.node_config import NodeConfig
from scal3r_ros.nodes.transforms import NotKnownYet, Transforms
from scal3r_ros.nodes.worker import MappingWorker


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
        self._subscriptions = []
        group = MutuallyExclusiveCallbackGroup()
        qos = input_qos(config.qos.odometry)
        if config.input.odometry or config.scale.source == "odometry":
            self._subscriptions.append(
                node.create_subscription(
                    Odometry, "odom", self._on_odometry, qos, callback_group=group
                )
            )
        if config.map.alignment == "imu":
            from sensor_msgs.msg import Imu

            self._subscriptions.append(
                node.create_subscription(Imu, "imu", self._on_imu, qos, callback_group=group)
            )

    def destroy(self) -> None:
        """From the executor's thread, or when it has ended."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

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
        self._worker.observe(lambda mapper: mapper.observe_odometry(stamp_ns, T_odom_base))

    def _on_imu(self, message) -> None:
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
