"""A process' view of the workers' group: the newest plan, messages to and from workers, services.

Has a ROS node of its own with its own thread, so that waiting for tens of megabytes never holds up
the callbacks of the node that asks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from std_srvs.srv import Trigger

from scal3r_ros.config import DistributedConfig
from scal3r_ros.msg import Chunk, ChunkPrediction, ContextState
from scal3r_ros.nodes.workers.context_messages import (
    BULK_QOS,
    STATE_QOS,
    USABLE,
    chunk_topic,
    prediction_topic,
)
from scal3r_ros.srv import LoadContext, SaveContext
from scal3r_ros.workers.hand_out import WorkersUnavailable

_GLANCE = 0.2
"""Seconds between two looks at whether an answer can still be hoped for."""


class ContextUnavailable(WorkersUnavailable):
    """No group of workers, or no answer from `context_sync_node`, within the time allowed."""


class ContextClient:
    """Thread-safe; every wait is bounded by an option of `DistributedConfig`."""

    def __init__(
        self, context: rclpy.Context, namespace: str, name: str, config: DistributedConfig
    ):
        self._config = config
        self._node = rclpy.create_node(
            name,
            namespace=namespace,
            context=context,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._changed = threading.Condition()
        self._state: ContextState | None = None
        self._heard_at = time.monotonic()
        self._answers: list[ChunkPrediction] = []
        self._publishers: dict[str, Any] = {}
        self._subscriptions: dict[str, Any] = {}
        self._node.create_subscription(ContextState, "context_state", self._on_state, STATE_QOS)
        self._clients: dict[str, Any] = {
            name: self._node.create_client(kind, f"context_sync_node/{name}")
            for name, kind in (
                ("reset_context", Trigger),
                ("save_context", SaveContext),
                ("load_context", LoadContext),
            )
        }
        self._closing = False
        self._thread = threading.Thread(target=self._spin, name="workers", daemon=True)
        self._thread.start()

    @property
    def state(self) -> ContextState | None:
        """The newest report of `context_sync_node`."""
        return self._state

    @property
    def _generation(self) -> int:
        return self._state.generation if self._state is not None else -1

    def usable_group(self, after: int) -> ContextState:
        """A complete group of a generation after `after`, with both directions connected."""
        deadline = time.monotonic() + self._config.ready_timeout

        def usable() -> bool:
            state = self._state
            return state is not None and state.state in USABLE and state.generation > after

        while True:
            with self._changed:
                self._changed.wait_for(usable, max(0.0, deadline - time.monotonic()))
                state = self._state
                if state is None or not usable():
                    raise ContextUnavailable(self._complaint(after))
            if self._connect(state, deadline):
                return state
            if time.monotonic() > deadline:
                raise ContextUnavailable(
                    f"the topics of {', '.join(state.workers)} did not connect within "
                    f"{self._config.ready_timeout:g} s"
                )

    def check_group(self) -> None:
        """Raise `ContextUnavailable` unless `context_sync_node` has just said that a group of
        workers stands."""
        state, silent = self._state, time.monotonic() - self._heard_at
        if state is None or silent > max(self._config.heartbeat_timeout, 2.0):
            raise ContextUnavailable(f"nothing heard of context_sync_node for {silent:.0f} s")
        if state.state not in USABLE:
            raise ContextUnavailable(f"no group of workers stands: {state.message}")

    def send(self, worker: str, message: Chunk) -> None:
        self._publishers[worker].publish(message)

    def wait_for_answers(
        self, enough: Callable[[list[ChunkPrediction]], bool], generation: int, timeout: float
    ) -> list[ChunkPrediction]:
        """Answers so far, once `enough` of them are there, the group has changed, or time is up."""

        def ended() -> bool:
            return enough(self._answers) or self._generation != generation

        with self._changed:
            self._changed.wait_for(ended, timeout)
            return list(self._answers)

    def forget_answers(self) -> None:
        """Drop what has come for earlier questions."""
        with self._changed:
            self._answers = []

    def call(self, name: str, request: Any, of_group: bool = False) -> Any:
        """Answer of a service of `context_sync_node`; it waits for the service to appear. With
        `of_group` only as long as `check_group` finds one, because a group has to answer."""
        client = self._clients[name]
        if of_group:
            self.check_group()
        elif not client.wait_for_service(self._config.ready_timeout):
            raise ContextUnavailable(
                f"no service {client.srv_name} after {self._config.ready_timeout:g} s; start "
                f"context_sync_node in the same namespace"
            )
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        deadline = time.monotonic() + self._config.service_timeout + self._config.store_timeout
        try:
            while not answered.wait(_GLANCE):
                if of_group:
                    self.check_group()
                if time.monotonic() > deadline:
                    raise ContextUnavailable(f"{client.srv_name} did not answer")
        except ContextUnavailable:
            client.remove_pending_request(future)
            raise
        return future.result()

    def close(self) -> None:
        """End the thread, then the node."""
        self._closing = True
        self._executor.wake()
        self._thread.join(2.0)
        self._executor.shutdown(timeout_sec=0.5)
        self._node.destroy_node()

    def _spin(self) -> None:
        try:
            while not self._closing and self._node.context.ok():
                self._executor.spin_once(timeout_sec=0.5)
        except (ExternalShutdownException, ShutdownException):
            pass

    def _on_state(self, state: ContextState) -> None:
        with self._changed:
            self._state, self._heard_at = state, time.monotonic()
            self._changed.notify_all()

    def _on_answer(self, answer: ChunkPrediction) -> None:
        with self._changed:
            self._answers.append(answer)
            self._changed.notify_all()

    def _connect(self, state: ContextState, deadline: float) -> bool:
        """Topics of all workers of a group, matched in both directions."""
        for worker in state.workers:
            if worker not in self._publishers:
                self._publishers[worker] = self._node.create_publisher(
                    Chunk, chunk_topic(worker), BULK_QOS
                )
                self._subscriptions[worker] = self._node.create_subscription(
                    ChunkPrediction, prediction_topic(worker), self._on_answer, BULK_QOS
                )
        while not all(self._is_matched(worker) for worker in state.workers):
            if time.monotonic() > deadline or self._generation != state.generation:
                return False
            time.sleep(0.02)
        return True

    def _is_matched(self, worker: str) -> bool:
        return bool(
            self._publishers[worker].get_subscription_count()
            and self._node.count_publishers(prediction_topic(worker))
        )

    def _complaint(self, after: int) -> str:
        waited = f"within {self._config.ready_timeout:g} s"
        if self._state is None:
            return f"nothing heard of context_sync_node {waited}; start it in the same namespace"
        return f"no group of workers after generation {after} {waited}: {self._state.message}"
