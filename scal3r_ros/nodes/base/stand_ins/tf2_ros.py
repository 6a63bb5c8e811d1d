"""Stand-in for tf2_ros: a transform buffer, its listener, and the two broadcasters."""

from __future__ import annotations

from typing import Any

from scal3r_ros.nodes.base.stand_ins.tf2_buffer import (
    Buffer,
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TransformException,
)

__all__ = [
    "Buffer",
    "ConnectivityException",
    "ExtrapolationException",
    "InvalidArgumentException",
    "LookupException",
    "StaticTransformBroadcaster",
    "TransformBroadcaster",
    "TransformException",
    "TransformListener",
]


class TransformListener:
    """Feeds a buffer from /tf and /tf_static."""

    def __init__(
        self, buffer: Buffer, node, *, spin_thread: bool = False, qos=None, static_qos=None
    ) -> None:
        from rclpy.callback_groups import ReentrantCallbackGroup
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from tf2_msgs.msg import TFMessage

        if spin_thread:
            raise NotImplementedError("the stand-in listens on the node's own executor")
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.buffer, self.node, self.group = buffer, node, ReentrantCallbackGroup()
        self.tf_sub = node.create_subscription(
            TFMessage, "/tf", self.callback, qos or QoSProfile(depth=100), callback_group=self.group
        )
        self.tf_static_sub = node.create_subscription(
            TFMessage, "/tf_static", self.static_callback, static_qos or latched,
            callback_group=self.group,
        )  # fmt: skip

    def callback(self, data) -> None:
        for transform in data.transforms:
            self.buffer.set_transform(transform, "default_authority")

    def static_callback(self, data) -> None:
        for transform in data.transforms:
            self.buffer.set_transform_static(transform, "default_authority")

    def unregister(self) -> None:
        """Stop listening."""
        self.node.destroy_subscription(self.tf_sub)
        self.node.destroy_subscription(self.tf_static_sub)


class TransformBroadcaster:
    """Publishes transforms on /tf."""

    def __init__(self, node, qos=None) -> None:
        from rclpy.qos import QoSProfile
        from tf2_msgs.msg import TFMessage

        self._message = TFMessage
        self.pub_tf = node.create_publisher(TFMessage, "/tf", qos or QoSProfile(depth=100))

    def sendTransform(self, transform) -> None:  # noqa: N802 - the library's name
        """Publish one transform or a list of them."""
        transforms = transform if isinstance(transform, (list, tuple)) else [transform]
        self.pub_tf.publish(self._message(transforms=list(transforms)))


class StaticTransformBroadcaster:
    """Publishes transforms on /tf_static, all that it was ever given."""

    def __init__(self, node, qos=None) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from tf2_msgs.msg import TFMessage

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.pub_tf = node.create_publisher(TFMessage, "/tf_static", qos or latched)
        self._message = TFMessage
        self._by_child: dict[str, Any] = {}

    def sendTransform(self, transform) -> None:  # noqa: N802 - the library's name
        """Publish one transform or a list of them, together with the earlier ones."""
        transforms = transform if isinstance(transform, (list, tuple)) else [transform]
        self._by_child.update({item.child_frame_id: item for item in transforms})
        self.pub_tf.publish(self._message(transforms=list(self._by_child.values())))
