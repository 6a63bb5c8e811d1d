"""`context_sync_node`: rendezvous and membership of the workers' group, snapshots of their memory.

It computes nothing. The decisions are `workers.coordinator`'s; this file carries signs of life
in, and the plan, services and health out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future
from std_srvs.srv import Trigger

from scal3r_ros.config import DistributedConfig
from scal3r_ros.msg import ContextState, WorkerState
from scal3r_ros.nodes.base import parameters
from scal3r_ros.nodes.base.managed_node import ManagedNode, TransitionRefused, run
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.mapping.diagnostics import (
    ERROR,
    OK,
    WARN,
    Concern,
    diagnostic_array,
    status_name,
)
from scal3r_ros.nodes.workers.context_messages import (
    HEARTBEAT_QOS,
    STATE_QOS,
    report_from_message,
    state_message,
)
from scal3r_ros.options import Section, option
from scal3r_ros.srv import LoadContext, SaveContext

if TYPE_CHECKING:
    from scal3r_ros.workers.coordinator import Announcement, Coordinator, Operation


@dataclass(frozen=True)
class ContextSyncConfig(Section):
    """All parameters of `context_sync_node`."""

    autostart: bool = option(
        True, "Configure and activate at start, for use without a lifecycle manager."
    )
    workers: int = option(
        1, "Workers to expect; with fewer the group works and is reported as degraded.", minimum=1
    )
    distributed: DistributedConfig = field(default_factory=DistributedConfig)


class ContextSyncNode(ManagedNode):
    """Lifecycle node around one `Coordinator`, which exists from configure to cleanup."""

    def __init__(self, name: str = "context_sync_node", **kwargs) -> None:
        super().__init__(name, **kwargs)
        parameters.declare(self, ContextSyncConfig())
        self.config: ContextSyncConfig = parameters.read(self, ContextSyncConfig())
        for sentence in parameters.unknown_overrides(self, NodeConfig()):  # files are shared
            self.get_logger().warning(sentence)
        self.coordinator: Coordinator | None = None
        self._active = False
        self._reports: dict[str, WorkerState] = {}
        self._announced: Announcement | None = None
        self._had_workers = False
        self._waiting: list[tuple[Operation, Future]] = []
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._states = self.create_publisher(ContextState, "context_state", STATE_QOS)
        self._heartbeats = self.create_subscription(
            WorkerState, "worker_state", self._on_worker, HEARTBEAT_QOS
        )
        self._offer_services()
        period = self.config.distributed.heartbeat_period
        self._steps = self.create_timer(period / 2, self._step, clock=self.steady_clock)
        self._health_timer = self.create_timer(1.0, self._report, clock=self.steady_clock)

    def configure(self) -> None:
        try:
            from scal3r_ros.workers.coordinator import Coordinator
        except ImportError as error:
            raise TransitionRefused(
                f"PyTorch is needed ({error}); install it with: pip install torch"
            ) from error
        try:
            # Wall time makes generations rise over restarts of this node; nothing is dated by it.
            first = int(time.time())
            self.coordinator = Coordinator(self.config.distributed, self.config.workers, first)
        except (RuntimeError, OSError, ValueError) as error:
            raise TransitionRefused(
                f"cannot open the rendezvous at {self.config.distributed.address}:"
                f"{self.config.distributed.port}: {error}"
            ) from error
        for sentence in self.coordinator.refused:
            self.get_logger().error(f"damaged snapshot refused: {sentence}")
        if self.coordinator.snapshot is not None:
            chunks = self.coordinator.snapshot.chunks
            self.get_logger().info(f"snapshot of {chunks} chunks is at hand for new workers")

    def activate(self) -> None:
        self._active = True

    def deactivate(self) -> None:
        """Plan nothing; the present group goes on by itself."""
        self._active = False

    def cleanup(self) -> None:
        self._active = False
        for _, future in self._waiting:
            future.set_result(None)
        self._waiting = []
        coordinator, self.coordinator = self.coordinator, None
        if coordinator is not None:
            coordinator.close()

    def _offer_services(self) -> None:
        group = MutuallyExclusiveCallbackGroup()

        def offer(kind, name, start) -> None:
            async def serve(request, response):
                return await self._serve(response, lambda c, now: start(c, request, now))

            self.create_service(kind, f"~/{name}", serve, callback_group=group)

        offer(Trigger, "reset_context", lambda c, _, now: c.reset(now))
        offer(SaveContext, "save_context",
              lambda c, r, now: c.save(now, r.path, r.key))  # fmt: skip
        offer(LoadContext, "load_context",
              lambda c, r, now: c.load(now, r.path, r.key))  # fmt: skip

    async def _serve(self, response, start: Callable[[Coordinator, float], Operation]):
        if not self._active or self.coordinator is None:
            response.success = False
            response.message = f"the node is {self.lifecycle_state}, not active; activate it first"
            return response
        operation = start(self.coordinator, time.monotonic())
        future: Future = Future(executor=self.executor)
        self._waiting.append((operation, future))
        await future
        response.success, response.message = operation.success, operation.message
        if not operation.done:
            response.message = "the node was stopped"
        if hasattr(response, "chunks"):
            response.path, response.chunks = operation.path, operation.chunks
        return response

    def _on_worker(self, message: WorkerState) -> None:
        if self.coordinator is not None and self._active:
            self._reports[message.worker] = message
            report = report_from_message(message)
            self.coordinator.hear(report, message.snapshot_done, time.monotonic())

    def _step(self) -> None:
        if self.coordinator is None or not self._active:
            return
        announcement = self.coordinator.step(time.monotonic())
        finished = [pair for pair in self._waiting if pair[0].done]
        self._waiting = [pair for pair in self._waiting if not pair[0].done]
        for _, future in finished:
            future.set_result(None)
        if announcement != self._announced:
            self._log_change(announcement)
            self._announced = announcement
            self._publish()

    def _log_change(self, new: Announcement) -> None:
        old = self._announced
        if old is not None and old.plan.generation == new.plan.generation:
            return
        if new.plan.workers:
            self._had_workers = True
            names = ", ".join(new.plan.workers)
            self.get_logger().info(f"generation {new.plan.generation}: {names}; {new.plan.reason}")
        elif self._had_workers:
            self.get_logger().error(f"no worker is left: {new.plan.reason}")

    def _publish(self) -> None:
        coordinator, new = self.coordinator, self._announced
        if coordinator is None or new is None:
            return
        message = state_message(new.plan, self._state_name(new), self._reports)
        message.header.stamp = self.get_clock().now().to_msg()
        message.policy = self.config.distributed.policy
        message.rejected = list(coordinator.rejected)
        message.expected_world_size = self.config.workers
        message.rendezvous = f"{new.address}:{new.port}"
        message.origin, message.origin_key = new.origin.kind, new.origin.key
        message.origin_epoch = new.origin.epoch
        message.snapshot_request = new.snapshot_request
        message.redone_rounds = coordinator.redone_rounds
        message.snapshot_round = coordinator.snapshot.round if coordinator.snapshot else 0
        self._states.publish(message)

    def _state_name(self, announcement: Announcement) -> str:
        plan = announcement.plan
        if not plan.workers:
            return ContextState.STATE_FAILED if self._had_workers else ContextState.STATE_FORMING
        if not plan.ready:
            return ContextState.STATE_FORMING
        complete = len(plan.workers) >= self.config.workers
        return ContextState.STATE_READY if complete else ContextState.STATE_DEGRADED

    def _report(self) -> None:
        """Once a second: the state again with fresh numbers, and health."""
        if self.coordinator is not None and self._announced is not None:
            self._publish()
        stamp = self.get_clock().now().to_msg()
        array = diagnostic_array(status_name(self), "", [self._sync_concern()], stamp)
        self._diagnostics.publish(array)

    def _sync_concern(self) -> Concern:
        if self.coordinator is None or self._announced is None:
            return Concern("sync", [(OK, f"not active ({self.lifecycle_state})")])
        plan, expected = self._announced.plan, self.config.workers
        findings = []
        if not plan.workers:
            level = ERROR if self._had_workers else WARN
            findings.append((level, f"no worker: {plan.reason}; start reconstruction_node"))
        elif not plan.ready:
            findings.append((WARN, f"generation {plan.generation} is forming: {plan.reason}"))
        elif len(plan.workers) < expected:
            findings.append((WARN, f"{len(plan.workers)} of {expected} workers: {plan.reason}"))
        if self.coordinator.rejected:
            names = ", ".join(self.coordinator.rejected)
            findings.append((WARN, f"{names}: other weights than the group; set model.checkpoint"))
        findings += [(WARN, f"snapshot refused: {s}") for s in self.coordinator.refused]
        digests = self._digests(plan)
        if len(set(digests.values())) > 1:
            findings.append((ERROR, f"memories differ: {digests}; call load_context or reset"))
        values = {
            "generation": plan.generation,
            "world size": f"{len(plan.workers)} of {expected}",
            "peers": ", ".join(plan.workers),
            "last change": plan.reason,
            "redone rounds": self.coordinator.redone_rounds,
        }
        return Concern("sync", findings, values)

    def _digests(self, plan) -> dict[str, str]:
        """Of the members that stand at the same round."""
        members = [self._reports[n] for n in plan.workers if n in self._reports]
        idle = [m for m in members if m.state == "idle" and m.generation == plan.generation]
        newest = max((m.committed_round for m in idle), default=0)
        return {m.worker: m.digest for m in idle if m.committed_round == newest}


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run scal3r_ros context_sync_node`."""
    return run(ContextSyncNode, args, autostart=lambda node: node.config.autostart)


if __name__ == "__main__":
    sys.exit(main())
