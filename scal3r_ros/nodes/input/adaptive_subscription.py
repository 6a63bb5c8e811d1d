"""A camera subscription that is as reliable as its publishers allow.

Best effort hears everybody but loses large images whole when one of their fragments is lost, which
on default network buffers is often. Reliable loses nothing but hears only reliable publishers.
`auto` asks for reliable while every publisher offers it. A change loses nothing: the old
subscription stays until the new one has heard something, and what waits in it is taken first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from scal3r_ros.nodes.base.node_config import TopicQosConfig
from scal3r_ros.nodes.base.qos_events import (
    SubscriptionEventCallbacks,
    UnsupportedEventTypeError,
    describe_mismatch,
)
from scal3r_ros.nodes.base.trouble import InputTrouble

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
OTHER = {RELIABLE: BEST_EFFORT, BEST_EFFORT: RELIABLE}


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
        section: str,
    ) -> None:
        """`section` is where the user finds the options of `config`, such as `qos.imu`."""
        self._node, self._kind, self._topic = node, kind, topic
        self._config, self._group, self._trouble = config, group, trouble
        self._section = section
        self._lost = f"lost_{topic.split('/')[0]}"
        self._callback = trouble.guarded(topic.split("/")[0], callback)
        self._mismatch: Any = None
        self._old: Any = None
        """The subscription before the change, while the new one has not heard anything."""
        self._new_has_heard = False
        self._only: dict[ReliabilityPolicy, Counter] = {RELIABLE: Counter(), BEST_EFFORT: Counter()}
        """During a change: stamps of messages that one subscription has heard and not the other."""
        self._unsettled = 0
        """Messages for which repetitions are still looked for."""
        self.reliability = BEST_EFFORT
        self.reliability = self._wanted()
        self._subscription = self._subscribe()

    def adapt(self) -> None:
        """Subscribe anew if the publishers have changed what they offer; tell of mismatches."""
        if self._mismatch is not None:
            self._tell(describe_mismatch(self._node, self._topic, self._mismatch, self._section))
            self._mismatch = None
        self._tell_of_other_types()
        if self._old is not None and self._new_has_heard:
            self._end_old()
        wanted = self._wanted()
        if wanted != self.reliability:
            self._end_old()
            self.reliability, self._new_has_heard = wanted, False
            self._unsettled = 2 * self._config.depth
            self._old, self._subscription = self._subscription, self._subscribe()

    def destroy(self) -> None:
        """From the executor's thread, or when it has ended."""
        for subscription in (self._old, self._subscription):
            if subscription is not None:
                self._node.destroy_subscription(subscription)
        self._old = None

    def _tell(self, sentence: str) -> None:
        """Once."""
        if sentence not in self._trouble.incompatible:
            self._trouble.incompatible.append(sentence)
            self._node.get_logger().warning(sentence)

    def _tell_of_other_types(self) -> None:
        """A topic whose publishers send another type is silent for this node."""
        ours = f"{self._kind.__module__.split('.')[0]}/msg/{self._kind.__name__}"
        for other in sorted({info.topic_type for info in self._publishers()} - {ours}):
            name = self._node.resolve_topic_name(self._topic)
            self._tell(
                f"{name} is published as {other}, which this node does not hear: it reads {ours}; "
                f"remap {self._topic}, or see input.image_transport"
            )

    def _publishers(self) -> list[Any]:
        name = self._node.resolve_topic_name(self._topic)
        return self._node.get_publishers_info_by_topic(name)

    def _wanted(self) -> ReliabilityPolicy:
        """Without any publisher the present choice stays: messages of one that left still wait."""
        if self._config.reliability != "auto":
            return ReliabilityPolicy[self._config.reliability.upper()]
        offers = [info.qos_profile.reliability for info in self._publishers()]
        if not offers:
            return self.reliability
        return RELIABLE if all(offer == RELIABLE for offer in offers) else BEST_EFFORT

    def _subscribe(self):
        try:
            return self._create(message_lost=self._on_lost)
        except UnsupportedEventTypeError:  # a middleware that does not count
            return self._create()

    def _create(self, **events: Callable):
        """Mismatches are worth telling only where `adapt` will not end them."""
        if self._config.reliability != "auto":
            events["incompatible_qos"] = self._on_incompatible
        callbacks = SubscriptionEventCallbacks(use_default_callbacks=False, **events)
        return self._node.create_subscription(
            self._kind,
            self._topic,
            partial(self._take, self.reliability),
            input_qos(self.reliability, self._config.depth),
            callback_group=self._group,
            event_callbacks=callbacks,
        )

    def _take(self, heard_as: ReliabilityPolicy, message: Any) -> None:
        if self._old is not None:
            self._new_has_heard |= heard_as == self.reliability
        if not (self._unsettled and self._repeats(heard_as, message.header.stamp)):
            self._callback(message)

    def _repeats(self, heard_as: ReliabilityPolicy, stamp: Any) -> bool:
        """Whether the other subscription has handed on this message; each counts once, because a
        looping bag repeats its stamps."""
        if self._old is None:
            self._unsettled -= 1
            if not self._unsettled:
                for heard in self._only.values():
                    heard.clear()
                return False
        other = self._only[OTHER[heard_as]]
        key = (stamp.sec, stamp.nanosec)
        if other[key]:
            other[key] -= 1
            return True
        own = self._only[heard_as]
        own[key] += 1
        while len(own) > 2 * self._config.depth:  # the oldest: more cannot wait on the other side
            del own[next(iter(own))]
        return False

    def _end_old(self) -> None:
        """Take what waits in the old subscription, then let it go."""
        old, self._old = self._old, None
        if old is None:
            return
        with old.handle:
            while (taken := old.handle.take_message(old.msg_type, old.raw)) is not None:
                self._take(OTHER[self.reliability], taken[0])
        self._node.destroy_subscription(old)

    def _on_incompatible(self, event: Any) -> None:
        """Described later: the name of the other side is not known yet."""
        self._mismatch = event.last_policy_kind

    def _on_lost(self, event: Any) -> None:
        """The middleware lost messages on the way, such as images with a fragment missing."""
        self._trouble.counts[self._lost] += event.total_count_change


def input_qos(reliability: ReliabilityPolicy, depth: int) -> QoSProfile:
    """Volatile: a transient-local subscriber would hear nothing from a volatile publisher."""
    return QoSProfile(depth=depth, reliability=reliability, durability=DurabilityPolicy.VOLATILE)
