"""A camera subscription that is as reliable as its publishers allow.

Best effort hears everybody but loses large images whole when one of their fragments is lost, which
on default network buffers is often. Reliable loses nothing but hears only reliable publishers.
`auto` asks for reliable while every publisher offers it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from scal3r_ros.nodes.base.node_config import TopicQosConfig
from scal3r_ros.nodes.base.qos_events import (
    SubscriptionEventCallbacks,
    describe_mismatch,
    silent_events,
)
from scal3r_ros.nodes.base.trouble import InputTrouble

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
        trouble: InputTrouble,
    ) -> None:
        self._node, self._kind, self._topic = node, kind, topic
        self._config, self._group, self._incompatible = config, group, trouble.incompatible
        self._callback = trouble.guarded(topic.split("/")[0], callback)
        self._mismatch: Any = None
        self.reliability = self._wanted()
        self._subscription = self._subscribe()

    def adapt(self) -> None:
        """Subscribe anew if the publishers have changed what they offer; tell of mismatches."""
        if self._mismatch is not None:
            sentence = describe_mismatch(self._node, self._topic, self._mismatch)
            self._mismatch = None
            if sentence not in self._incompatible:
                self._incompatible.append(sentence)
                self._node.get_logger().warning(sentence)
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
        """Mismatches are worth telling only where `adapt` will not end them."""
        events = silent_events()
        if self._config.reliability != "auto":
            events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
        return self._node.create_subscription(
            self._kind,
            self._topic,
            self._callback,
            input_qos(self.reliability, self._config.depth),
            callback_group=self._group,
            event_callbacks=events,
        )

    def _on_incompatible(self, event: Any) -> None:
        """Described later: the name of the other side is not known yet."""
        self._mismatch = event.last_policy_kind


def input_qos(reliability: ReliabilityPolicy, depth: int) -> QoSProfile:
    """Volatile: a transient-local subscriber would hear nothing from a volatile publisher."""
    return QoSProfile(depth=depth, reliability=reliability, durability=DurabilityPolicy.VOLATILE)
