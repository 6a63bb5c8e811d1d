"""Optional inputs beside the camera: wheel odometry, IMU, satellite fixes and measured depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import Image, Imu, NavSatFix

from scal3r_ros.io.bag_measurements import has_fix
from scal3r_ros.io.depth_image import depth_in_metres, thinned
from scal3r_ros.nodes.base.conversions import frame_name, pose_to_matrix, required_stamp_ns
from scal3r_ros.nodes.base.node_config import NodeConfig, TopicQosConfig
from scal3r_ros.nodes.base.trouble import InputTrouble
from scal3r_ros.nodes.input.adaptive_subscription import AdaptiveSubscription
from scal3r_ros.nodes.mapping.worker import MappingWorker
from scal3r_ros.nodes.output.transforms import NotKnownYet, Transforms


class SideInputs:
    """Subscribes to `odom`, `imu`, `fix` and `depth` where the configuration uses them."""

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
        self.trouble = InputTrouble(node.get_logger())
        sources = config.scale.sources
        if config.input.odometry or "odometry" in sources:
            self._subscribe(Odometry, "odom", self._on_odometry, "odometry")
        if config.map.alignment == "imu" or "imu" in sources:
            self._subscribe(Imu, "imu", self._on_imu, "imu")
        if "depth" in sources:
            self._subscribe(Image, "depth", self._on_depth, "depth_image")
        if "gnss" in sources:
            self._subscribe(NavSatFix, "fix", self._on_fix, "gnss")

    def destroy(self) -> None:
        """From the executor's thread, or when it has ended."""
        for subscription in self._subscriptions:
            subscription.destroy()
        self._subscriptions = []

    def adapt(self) -> None:
        """Follow what the publishers offer; once a second, from the executor's thread."""
        for subscription in self._subscriptions:
            subscription.adapt()

    def _subscribe(self, kind: Any, topic: str, callback: Callable, section: str) -> None:
        qos: TopicQosConfig = getattr(self._config.qos, section)
        group = MutuallyExclusiveCallbackGroup()
        self._subscriptions.append(
            AdaptiveSubscription(
                self._node, kind, topic, callback, qos, group, self.trouble, f"qos.{section}"
            )
        )

    def _on_odometry(self, message: Odometry) -> None:
        stamp_ns = required_stamp_ns(message.header.stamp)
        T_odom_base = pose_to_matrix(message.pose.pose)
        self._transforms.odometry.add(stamp_ns, T_odom_base)
        self._tell_mount(stamp_ns)
        self._worker.observe(lambda mapper: mapper.observe_odometry(stamp_ns, T_odom_base))

    def _tell_mount(self, stamp_ns: int) -> None:
        """Give the mapper the camera's place on the base once TF knows it. Odometry is of the base
        and cannot be used for the camera before."""
        camera_frame = self._camera_frame()
        if self._mount_told or not camera_frame:
            return
        try:
            T_base_camera = self._transforms.extrinsic(camera_frame, stamp_ns)
        except NotKnownYet:
            return
        self._mount_told = True
        # A command, not a measurement: those are dropped when too many wait for the network.
        self._worker.submit(lambda mapper: mapper.set_camera_mount(T_base_camera))

    def _on_imu(self, message: Imu) -> None:
        """Acceleration and turn rate in the camera's axes; dropped while TF does not tell how."""
        stamp_ns = required_stamp_ns(message.header.stamp)
        force, rate = (
            np.array([reading.x, reading.y, reading.z])
            for reading in (message.linear_acceleration, message.angular_velocity)
        )
        if not np.isfinite([force, rate]).all():
            raise ValueError(f"acceleration {force} or turn rate {rate} is not finite")
        try:
            T_camera_imu = self._transforms.sensor_to_camera(
                frame_name(message.header.frame_id), self._camera_frame(), stamp_ns
            )
        except NotKnownYet as missing:
            self._node.get_logger().warning(f"imu: {missing}", throttle_duration_sec=5.0)
            return
        turn = T_camera_imu[:3, :3]
        reading = np.concatenate([turn @ force, turn @ rate, T_camera_imu[:3, 3]])
        if np.any(force):
            self._worker.observe(lambda mapper: mapper.observe_imu(stamp_ns, reading))

    def _on_fix(self, message: NavSatFix) -> None:
        """A place on earth; a receiver without a fix tells none."""
        stamp_ns = required_stamp_ns(message.header.stamp)
        if has_fix(message):
            fix = np.array([message.latitude, message.longitude, message.altitude])
            self._worker.observe(lambda mapper: mapper.observe_fix(stamp_ns, fix))

    def _on_depth(self, message: Image) -> None:
        """Depth of the colour camera's image with the same stamp; of no use once the map is in
        metres."""
        mapper = self._worker.mapper
        if mapper is not None and mapper.scale.frozen:
            return
        stamp_ns = required_stamp_ns(message.header.stamp)
        metres = thinned(depth_in_metres(message, "depth"))
        self._worker.observe(lambda mapper: mapper.observe_depth(stamp_ns, metres))
