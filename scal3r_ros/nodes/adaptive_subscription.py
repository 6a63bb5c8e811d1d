"""A camera subscription that is as reliable as its publishers allow.

Best effort hears everybody but loses large images whole when one of their fragments is lost, which
on default network buffers is often. Reliable loses nothing but hears only reliable publishers.
`auto` asks for reliable while every publisher offers it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from scal3r_ros.nodes.node_config import TopicQosConfig
from scal3r_ros.nodes.qos_events import incompatible_qos_callbacks

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


class AdaptiveSubscription:
    """Subscribes on construction; call `adapt` now and then from the executor's thread."""

    def __init__(
        self,
        node,
        kind: Any,
        topic: str,
        callback: Callable,
        config: TopicQosConfig,
        group,
        incompatible: list[str],
    ) -> None:
        self._node, self._kind, self._topic, self._callback = node, kind, topic, callback
        self._config, self._group, self._incompatible = config, group, incompatible
        self.reliability = self._wanted()
        self._subscription = self._subscribe()

    def adapt(self) -> None:
        """Subscribe anew if the publishers of the topic have changed what they offer."""
        wanted = self._wanted()
        if wanted != self.reliability:
            self.reliability = wanted
            self.destroy()
            self._subscription = self._subscribe()

    def destroy(self) -> None:
        """From the executor's thread, or when it has ended."""
        self._node.destroy_subscription(self._subscription)

    def _wanted(self) -> ReliabilityPolicy:
        if self._config.reliability != "auto":
            return ReliabilityPolicy[self._config.reliability.upper()]
        name = self._node.resolve_topic_name(self._topic)
        offers = [
            info.qos_profile.reliability for info in self._node.get_publishers_info_by_topic(name)
        ]
        return RELIABLE if offers and all(offer == RELIABLE for offer in offers) else BEST_EFFORT

    def _subscribe(self):
        return self._node.create_subscription(
            self._kind,
            self._topic,
            self._callback,
            input_qos(self.reliability, self._config.depth),
            callback_group=self._group,
            event_callbacks=incompatible_qos_callbacks(self._node, self._topic, self._incompatible),
        )


def input_qos(reliability: ReliabilityPolicy, depth: int) -> QoSProfile:
    """Volatile: a transient-local subscriber would hear nothing from a volatile publisher."""
    return QoSProfile(depth=depth, reliability=reliability, durability=DurabilityPolicy.VOLATILE)
