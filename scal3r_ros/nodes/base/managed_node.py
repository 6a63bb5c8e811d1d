"""What every lifecycle node of the package shares: transitions that report, and a main that stops.

rclpy swallows exceptions of transition callbacks and leaves Ctrl-C to chance; here a transition
logs its traceback, and SIGINT and SIGTERM take the same path in every state.
"""

from __future__ import annotations

import gc
import inspect
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, ShutdownException
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.lifecycle.node import LifecycleNodeMixin
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from scal3r_ros.threads import wait_passively

SWITCH_INTERVAL = 0.001
"""Seconds after which a busy Python thread lets a waiting callback run; the usual 5 ms add up."""
BAD_PARAMETERS = 2
"""Exit code when the node cannot start because of what the user wrote."""
BREATH = 0.01
"""Seconds after a callback that failed: if all of them do, the processor is left to others."""
STATES = ("unconfigured", "inactive", "active", "finalized")


class TransitionRefused(Exception):
    """A transition cannot be done now; the message says why. The node stays where it was."""


class ManagedNode(LifecycleNode):
    """Override `configure`, `activate`, `deactivate`, `cleanup` and `stop`; raise to refuse."""

    def __init__(self, name: str, **kwargs) -> None:
        self.transition_group = MutuallyExclusiveCallbackGroup()
        # Both halves by hand: LifecycleNode does not pass a callback group on, and older ones of
        # its mixin do not take one.
        Node.__init__(self, name, **kwargs)
        accepted = inspect.signature(LifecycleNodeMixin.__init__).parameters
        group: dict[str, Any] = (
            {"callback_group": self.transition_group} if "callback_group" in accepted else {}
        )
        LifecycleNodeMixin.__init__(self, **group)
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.left_behind: list[str] = []
        """Work that could not be ended in time and still runs; the process must not wait for it."""
        self.failed_callbacks = 0

    @property
    def lifecycle_state(self) -> str:
        """`unconfigured`, `inactive`, `active` or `finalized`, or the transition under way."""
        return self._state_machine.current_state[1]

    def configure(self) -> None:
        """Check parameters, create entities, start to load; returns quickly."""

    def activate(self) -> None:
        """Accept input."""

    def deactivate(self) -> None:
        """Accept no more input; keep everything else."""

    def cleanup(self) -> None:
        """Undo `configure`, also after it failed half way."""

    def stop(self) -> None:
        """Last steps from any state: save if asked to, then as `cleanup`."""
        self.cleanup()

    def on_configure(self, state) -> TransitionCallbackReturn:
        return self._guarded(self.configure)

    def on_activate(self, state) -> TransitionCallbackReturn:
        return self._guarded(self.activate)

    def on_deactivate(self, state) -> TransitionCallbackReturn:
        return self._guarded(self.deactivate)

    def on_cleanup(self, state) -> TransitionCallbackReturn:
        return self._guarded(self.cleanup)

    def on_shutdown(self, state) -> TransitionCallbackReturn:
        return self._guarded(self.stop)

    def on_error(self, state) -> TransitionCallbackReturn:
        return self._guarded(self.cleanup)

    def _guarded(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except TransitionRefused as refusal:
            self.get_logger().error(f"cannot {step.__name__}: {refusal}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            # The border to rclpy, which would drop the exception without a word.
            self.get_logger().error(f"{step.__name__} failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        self.get_logger().info(f"{step.__name__}: done")
        return TransitionCallbackReturn.SUCCESS

    def bring_up(self) -> None:
        """Configure and activate, for use without a lifecycle manager."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()


NodeType = TypeVar("NodeType", bound=ManagedNode)


def run(
    make_node: Callable[[], NodeType],
    args: Sequence[str] | None = None,
    make_executor: Callable[[NodeType], rclpy.executors.Executor] | None = None,
    autostart: Callable[[NodeType], bool] = lambda node: True,
) -> int:
    """Run one node until it is interrupted or its context is shut down; returns the exit code.

    Callbacks run in a thread of their own, so that the main thread can take a signal at any time.
    """
    wait_passively()  # for `python -m`; the installed executables did so before numpy was loaded
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    sys.setswitchinterval(SWITCH_INTERVAL)
    rclpy.init(
        args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO
    )
    failures: list[BaseException] = []
    try:
        node = make_node()
    except ValueError as error:
        rclpy.logging.get_logger("scal3r_ros").fatal(f"wrong parameters: {error}")
        rclpy.try_shutdown()
        return BAD_PARAMETERS
    executor = make_executor(node) if make_executor else rclpy.executors.SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            if autostart(node) and not interrupted.is_set():
                node.bring_up()
            while not interrupted.is_set() and rclpy.ok():
                _spin_once(node, executor)
        except (ExternalShutdownException, ShutdownException):
            pass
        except BaseException as error:  # handed to the main thread, which reports it
            failures.append(error)
        finally:
            interrupted.set()

    callbacks = threading.Thread(target=spin, name="callbacks", daemon=True)
    callbacks.start()
    interrupted.wait()
    return _stop(node, executor, callbacks, failures)


def _spin_once(node: ManagedNode, executor: rclpy.executors.Executor) -> None:
    """Run what is due; an exception costs the callback that raised it and nothing else, however
    often that happens: the map is still there and can be saved."""
    try:
        executor.spin_once(timeout_sec=None)
    except (ExternalShutdownException, ShutdownException):
        raise
    except Exception:  # the border to whoever sends; counted, logged, reported
        node.failed_callbacks += 1
        node.get_logger().error(
            f"a callback failed:\n{traceback.format_exc()}", throttle_duration_sec=5.0
        )
        time.sleep(BREATH)


def _stop(node, executor, callbacks: threading.Thread, failures: list[BaseException]) -> int:
    """End the callbacks, then the node, then the context; returns the exit code."""
    executor.wake()
    callbacks.join(timeout=1.0)
    if callbacks.is_alive():
        node.left_behind.append("a callback")
    if node.lifecycle_state in STATES[:3] and rclpy.ok():
        node.trigger_shutdown()
    elif node.lifecycle_state != "finalized":
        node.stop()
    for error in failures:
        node.get_logger().fatal("".join(traceback.format_exception(error)))
    if node.left_behind:
        names = ", ".join(node.left_behind)
        node.get_logger().warning(f"leaving without waiting for {names}")
    if not callbacks.is_alive():
        _say_goodbye(node, executor)
    if node.left_behind:
        # Native code still runs in a daemon thread; unwinding the interpreter under it would crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if failures else 0)
    gc.freeze()  # collecting all of torch once more at exit would take a second of processor time
    return 1 if failures else 0


def _say_goodbye(node, executor) -> None:
    """Leave the DDS domain now; who vanishes without a word is believed alive for 20 seconds."""
    executor.shutdown(timeout_sec=0.5)
    node.destroy_node()
    node._state_machine.destroy_when_not_in_use()  # the last that keeps the node's handle
    rclpy.try_shutdown()
