"""A subscription that changes its reliability loses nothing and repeats nothing."""

import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from mapping_process import BEST_EFFORT
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Imu

from scal3r_ros.nodes.base.conversions import header
from scal3r_ros.nodes.base.node_config import TopicQosConfig
from scal3r_ros.nodes.base.trouble import InputTrouble
from scal3r_ros.nodes.input.adaptive_subscription import AdaptiveSubscription

pytestmark = pytest.mark.ros


@pytest.fixture
def heard(node):
    """The subscription under test and the seconds of what it handed on."""
    seconds: list[int] = []
    subscription = AdaptiveSubscription(
        node, Imu, "imu", lambda message: seconds.append(message.header.stamp.sec),
        TopicQosConfig(depth=50), MutuallyExclusiveCallbackGroup(), InputTrouble(node.get_logger()),
        "qos.imu",
    )  # fmt: skip
    yield subscription, seconds
    subscription.destroy()


def publish(publisher, numbers) -> None:
    for number in numbers:
        publisher.publish(Imu(header=header("imu", number * 10**9)))


def test_what_waits_when_the_publisher_leaves_is_taken(ros, node, spin_until, heard):
    subscription, seconds = heard
    driver = ros.create_node("driver")
    publisher = driver.create_publisher(Imu, "imu", 50)

    def reliable() -> bool:
        subscription.adapt()
        return subscription.reliability == ReliabilityPolicy.RELIABLE

    spin_until(reliable, node, driver)
    publish(publisher, [1])
    spin_until(lambda: seconds == [1], node, driver)
    subscription.adapt()
    publish(publisher, range(2, 31))
    publisher.wait_for_all_acked()
    driver.destroy_node()
    while node.count_publishers("imu"):  # without spinning: all of them still wait
        time.sleep(0.02)
    subscription.adapt()
    assert subscription.reliability == ReliabilityPolicy.RELIABLE, "nothing else is offered"
    spin_until(lambda: len(seconds) == 30, node)
    assert seconds == list(range(1, 31))


def test_a_change_neither_loses_nor_repeats(ros, node, spin_until, heard):
    subscription, seconds = heard
    driver = ros.create_node("driver")
    strong = driver.create_publisher(Imu, "imu", 50)

    def changed_to(policy) -> bool:
        subscription.adapt()
        return subscription.reliability == policy

    spin_until(strong.get_subscription_count, node, driver)
    publish(strong, range(1, 6))
    spin_until(lambda: len(seconds) == 5, node, driver)
    spin_until(lambda: changed_to(ReliabilityPolicy.RELIABLE), node, driver)
    publish(strong, range(6, 11))  # before the new subscription is known to the publisher
    spin_until(lambda: len(seconds) == 10, node, driver)
    spin_until(lambda: strong.get_subscription_count() == 2, node, driver)
    publish(strong, range(11, 16))  # heard twice
    spin_until(lambda: len(seconds) >= 15, node, driver)
    weak = driver.create_publisher(Imu, "imu", BEST_EFFORT)
    spin_until(lambda: changed_to(ReliabilityPolicy.BEST_EFFORT), node, driver)
    spin_until(weak.get_subscription_count, node, driver)
    publish(strong, range(16, 21))  # through the old and the new one
    publish(weak, range(21, 26))
    spin_until(lambda: len(seconds) >= 25, node, driver)
    subscription.adapt()
    spin_until(lambda: weak.get_subscription_count() == 1, node, driver)
    publish(strong, [26])
    spin_until(lambda: 26 in seconds, node, driver)
    assert sorted(seconds) == list(range(1, 27))
    driver.destroy_node()


def test_a_mismatch_names_the_options_of_its_own_topic(ros, node, spin_until):
    trouble = InputTrouble(node.get_logger())
    strict = AdaptiveSubscription(
        node, Imu, "imu", lambda message: None, TopicQosConfig(reliability="reliable"),
        MutuallyExclusiveCallbackGroup(), trouble, "qos.imu",
    )  # fmt: skip
    driver = ros.create_node("driver")
    driver.create_publisher(Imu, "imu", BEST_EFFORT)

    def told() -> bool:
        strict.adapt()
        return bool(trouble.incompatible)

    spin_until(told, node, driver)
    (sentence,) = trouble.incompatible
    assert "driver offers best_effort" in sentence
    assert "set qos.imu.reliability to best_effort" in sentence and "qos.image" not in sentence
    strict.destroy()
    driver.destroy_node()


OTHER = """
import rclpy, time
from std_msgs.msg import String
rclpy.init()
kept = rclpy.create_node("other").create_publisher(String, "/imu", 5)
time.sleep(60)
"""


def test_publishers_of_another_type_are_named(node, spin_until, heard):
    subscription, _ = heard
    process = subprocess.Popen([sys.executable, "-c", OTHER])

    def told() -> list[str]:
        subscription.adapt()
        return subscription._trouble.incompatible

    try:
        (sentence,) = spin_until(told, node, timeout=30.0)
        assert "/imu is published as std_msgs/msg/String" in sentence
        assert "it reads sensor_msgs/msg/Imu" in sentence
        assert len(told()) == 1, "once"
    finally:
        process.kill()
        process.wait()
