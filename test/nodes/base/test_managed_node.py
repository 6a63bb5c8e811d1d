"""Lifecycle transitions that go wrong: told with their traceback, never swallowed."""

import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from rclpy.lifecycle import TransitionCallbackReturn

from scal3r_ros.nodes.base.managed_node import ManagedNode, TransitionRefused

pytestmark = pytest.mark.ros


class Fragile(ManagedNode):
    cleaned = 0

    def configure(self):
        if self.cleaned == 0:
            raise TransitionRefused("no weights at /nowhere")

    def activate(self):
        raise RuntimeError("the camera is on fire")

    def cleanup(self):
        self.cleaned += 1


def test_failures_are_logged_and_lead_back_to_unconfigured(ros, capfd):
    node = Fragile("fragile")
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert node.lifecycle_state == "unconfigured"
        assert "cannot configure: no weights at /nowhere" in capfd.readouterr().err
        node.cleaned = 1
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        node.trigger_activate()
        assert node.lifecycle_state == "unconfigured" and node.cleaned == 2
        told = capfd.readouterr().err
        assert "Traceback" in told and "the camera is on fire" in told
        assert node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS
        assert node.cleaned == 3
    finally:
        node.destroy_node()


def test_transitions_have_a_callback_group_of_their_own(ros):
    node = Fragile("grouped")
    try:
        assert node._service_change_state.callback_group is node.transition_group
        assert node.transition_group is not node.default_callback_group
    finally:
        node.destroy_node()


def test_callbacks_that_always_fail_end_nothing(ros, capfd):
    """More of them than any limit: the node goes on, and says so now and then."""
    from scal3r_ros.nodes.base.managed_node import _spin_once

    node, heard = Fragile("troubled"), []
    executor = ros.executors.SingleThreadedExecutor()
    executor.add_node(node)
    node.create_timer(0.001, lambda: 1 / 0)
    node.create_timer(0.05, lambda: heard.append(1))
    try:
        deadline = time.monotonic() + 30.0
        while node.failed_callbacks < 150 and time.monotonic() < deadline:
            _spin_once(node, executor)
        assert node.failed_callbacks >= 150 and len(heard) > 5
        told = capfd.readouterr().err
        assert 1 <= told.count("ZeroDivisionError") < 20
    finally:
        executor.shutdown()
        node.destroy_node()
