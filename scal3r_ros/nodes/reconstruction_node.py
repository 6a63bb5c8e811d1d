"""`reconstruction_node`: one GPU's worker. Chunks in, predictions out, one memory with the others.

The callbacks only queue; a `Worker` thread owns network, memory and process group.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from scal3r_ros.config import DistributedConfig, MemoryConfig, ModelConfig
from scal3r_ros.msg import Chunk, ChunkPrediction, ContextState, WorkerState
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
    BULK_QOS,
    HEARTBEAT_QOS,
    STATE_QOS,
    answer_message,
    assignment_from_state,
    work_from_message,
    worker_message,
)
from scal3r_ros.options import Section, option
from scal3r_ros.reconstruct.choice import network_model
from scal3r_ros.reconstruct.factory import check_processes
from scal3r_ros.workers.tasks import Answer
from scal3r_ros.workers.worker import Worker

if TYPE_CHECKING:
    from scal3r_ros.workers.lockstep_worker import LockstepWorker


@dataclass(frozen=True)
class ReconstructionConfig(Section):
    """All parameters of `reconstruction_node`."""

    autostart: bool = option(
        True, "Configure and activate at start, for use without a lifecycle manager."
    )
    stop_timeout: float = option(
        3.0, "How long stopping waits for the round in flight.", unit="s", minimum=0.0
    )
    model: ModelConfig = field(default_factory=ModelConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)


class ReconstructionNode(ManagedNode):
    """Lifecycle node around one `Worker`, which exists from configure to cleanup."""

    def __init__(self, name: str = "reconstruction_node", **kwargs) -> None:
        super().__init__(name, **kwargs)
        parameters.declare(self, ReconstructionConfig())
        self.config: ReconstructionConfig = parameters.read(self, ReconstructionConfig())
        for sentence in parameters.unknown_overrides(self, NodeConfig()):  # files are shared
            self.get_logger().warning(sentence)
        self.loop: Worker | None = None
        self._state: ContextState | None = None
        self._active = False
        self._entities: list = []
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._health_timer = self.create_timer(
            1.0, self._report_health, MutuallyExclusiveCallbackGroup(), clock=self.steady_clock
        )

    def configure(self) -> None:
        config = self.config
        _check_prerequisites(config)
        self.loop = Worker(
            self.get_fully_qualified_name(),
            config.distributed,
            lambda: _make_worker(config),
            self._answer,
        )
        self._predictions = self.create_publisher(ChunkPrediction, "~/prediction", BULK_QOS)
        self._heartbeats = self.create_publisher(WorkerState, "worker_state", HEARTBEAT_QOS)
        self._entities = [
            self.create_subscription(Chunk, "~/chunk", self._on_chunk, BULK_QOS),
            self.create_subscription(ContextState, "context_state", self._on_state, STATE_QOS),
            self.create_timer(
                config.distributed.heartbeat_period, self._beat, clock=self.steady_clock
            ),
        ]
        self.loop.start()

    def activate(self) -> None:
        self._active = True
        self._follow()

    def deactivate(self) -> None:
        """Leave the group after the round in flight; network and memory stay loaded."""
        self._active = False

    def cleanup(self) -> None:
        self._active = False
        loop, self.loop = self.loop, None
        if loop is not None:
            if loop.fingerprint:
                self._heartbeats.publish(self._heartbeat(loop, leaving=True))
            if not loop.stop(self.config.stop_timeout):
                self.left_behind.append("a round in flight")
        for entity in self._entities:
            destroy = (
                self.destroy_timer
                if hasattr(entity, "timer_period_ns")
                else (self.destroy_subscription)
            )
            destroy(entity)
        if self._entities:
            self.destroy_publisher(self._predictions)
            self.destroy_publisher(self._heartbeats)
        self._entities = []

    def _on_chunk(self, message: Chunk) -> None:
        try:
            work = work_from_message(message)
        except ValueError as error:
            self.get_logger().error(f"chunk {message.index} is malformed: {error}")
            return
        if self.loop is not None:
            self.loop.give(work)

    def _on_state(self, state: ContextState) -> None:
        self._state = state
        self._follow()

    def _follow(self) -> None:
        assignment = assignment_from_state(self._state) if self._state is not None else None
        if assignment is not None and self._active and self.loop is not None:
            self.loop.announce(assignment)

    def _answer(self, answer: Answer) -> None:
        """Called on the worker's thread."""
        if self.loop is not None:  # else cleaned up meanwhile, and nobody waits
            self._predictions.publish(answer_message(answer, self.loop.status.rank))

    def _beat(self) -> None:
        """Sent once the weights are loaded; a worker without weights must not be given chunks."""
        if self.loop is not None and self.loop.fingerprint:
            self._heartbeats.publish(self._heartbeat(self.loop, leaving=not self._active))

    def _heartbeat(self, loop: Worker, leaving: bool) -> WorkerState:
        message = worker_message(loop.name, loop.fingerprint, loop.status)
        message.host, message.device = socket.gethostname(), self.config.model.device
        message.header.stamp = self.get_clock().now().to_msg()
        if leaving and message.state != WorkerState.STATE_COMPUTING:
            message.state = WorkerState.STATE_LEAVING
        return message

    def _report_health(self) -> None:
        concern = _sync_concern(self.loop, self._state, self.get_fully_qualified_name())
        stamp = self.get_clock().now().to_msg()
        array = diagnostic_array(status_name(self), self.config.model.device, [concern], stamp)
        self._diagnostics.publish(array)


def _sync_concern(loop: Worker | None, state: ContextState | None, name: str) -> Concern:
    """Whether this worker is at work, and if not, why."""
    if loop is None:
        return Concern("sync", [(OK, "not configured")])
    if loop.failure is not None:
        return Concern("sync", [(ERROR, f"the worker ended: {loop.failure}")])
    status = loop.status
    findings = []
    if not loop.fingerprint:
        findings.append((WARN, "loading weights"))
    elif state is None:
        findings.append((ERROR, "no context_sync_node is heard; start it, or remap context_state"))
    elif name in state.rejected:
        findings.append(
            (ERROR, "weights differ from those of the other workers; set model.checkpoint")
        )
    elif status.state in ("joining", "broken"):
        findings.append((WARN, status.message))
    values = {
        "state": status.state,
        "generation": status.generation,
        "rank": status.rank,
        "round": status.round,
        "committed round": status.committed,
        "chunks merged": status.memory.chunks,
        "round [s]": f"{status.round_seconds:.3f}",
        "sync [s]": f"{status.sync_seconds:.3f}",
        "sync [MB]": f"{status.sync_bytes / 1e6:.2f}",
    }
    return Concern("sync", findings, values)


def _check_prerequisites(config: ReconstructionConfig) -> None:
    try:
        check_processes(config.model.reconstructor, "reconstruction_node")
    except ValueError as error:
        raise TransitionRefused(str(error)) from error
    if network_model(config.model).reconstructor != "scal3r":
        raise TransitionRefused(
            f"model.reconstructor {config.model.reconstructor} has no memory to share; run it in "
            f"mapping_node with worker.count 0"
        )
    if config.memory.mode in ("batch", "finalize"):
        raise TransitionRefused(
            f"memory.mode {config.memory.mode} needs all chunks in one process or under torchrun; "
            f"set it to stream for workers"
        )
    if importlib.util.find_spec("torch") is None:
        raise TransitionRefused("PyTorch is needed; install it with: pip install torch")


def _make_worker(config: ReconstructionConfig) -> LockstepWorker:
    """Load the network; on the worker's thread, because it takes seconds to minutes."""
    from scal3r_ros.reconstruct.scal3r.setup import open_scal3r
    from scal3r_ros.workers.async_worker import AsyncWorker
    from scal3r_ros.workers.lockstep_worker import LockstepWorker

    engine = open_scal3r(network_model(config.model), config.memory)
    kind = AsyncWorker if config.distributed.policy == "async" else LockstepWorker
    return kind(engine, config.distributed, engine.network.device)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run scal3r_ros reconstruction_node`."""
    return run(ReconstructionNode, args, autostart=lambda node: node.config.autostart)


if __name__ == "__main__":
    sys.exit(main())
