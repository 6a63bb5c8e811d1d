"""Subscriptions that hear nothing because quality of service does not match: told, not silent."""

from __future__ import annotations

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

__all__ = ["SubscriptionEventCallbacks", "UnsupportedEventTypeError", "describe_mismatch"]


def describe_mismatch(node, topic: str, policy_kind, section: str) -> str:
    """Names both sides: what we ask for and what each publisher offers. `section` holds the
    topic's options, such as `qos.imu`."""
    name = node.resolve_topic_name(topic)
    asked = [
        info.qos_profile
        for info in node.get_subscriptions_info_by_topic(name)
        if info.node_name == node.get_name() and info.node_namespace == node.get_namespace()
    ]
    ours = _text(asked[0]) if asked else "?"
    theirs = ", ".join(
        f"{info.node_name} offers {_text(info.qos_profile)}"
        for info in node.get_publishers_info_by_topic(name)
    )
    policy = getattr(policy_kind, "name", str(policy_kind)).lower()
    return (
        f"{name}: a publisher cannot be heard ({policy}): we ask for {ours}; "
        f"{theirs or 'the other side is unknown'}; "
        f"set {section}.reliability to best_effort"
    )


def _text(profile) -> str:
    return f"{profile.reliability.name.lower()} {profile.durability.name.lower()}"
