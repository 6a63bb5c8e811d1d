"""`mapping_node`: camera topic in, map, trajectory and /tf out.

The callbacks only queue; `worker` owns network and map; `publisher` makes the messages. This file
connects them over the lifecycle.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from scal3r_ros.nodes.base import parameters
from scal3r_ros.nodes.base.managed_node import ManagedNode, TransitionRefused, run
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.mapping.commands import MapCommands
from scal3r_ros.nodes.mapping.health import HealthReport
from scal3r_ros.nodes.mapping.loading import check_prerequisites, make_mapper
from scal3r_ros.nodes.mapping.long_work import LongWork
from scal3r_ros.nodes.mapping.merging import merge_in_background
from scal3r_ros.nodes.mapping.services import NotPossible, Services
from scal3r_ros.nodes.mapping.session import MappingSession
from scal3r_ros.options import from_dict, to_dict
from scal3r_ros.pipeline.progress import Progress
from scal3r_ros.reconstruct.factory import preset_for

LIVE = (
    "publish", "autosave", "loop", "input.timeout", "gate.stride", "gate.max_rate", "gate.max_gap",
    "queue.max_frames", "queue.max_megabytes", "queue.max_delay", "worker.stop_timeout",
    "worker.max_failures",
)  # fmt: skip
"""Parameters, and sections of them, that take effect at once; the others at the next configure."""


class MappingNode(ManagedNode):
    """Lifecycle node around one `MappingSession`, which exists from configure to cleanup."""

    def __init__(
        self,
        make_mapper: Callable = make_mapper,
        parameter_overrides: Sequence = (),
        name: str = "mapping_node",
    ) -> None:
        super().__init__(name, parameter_overrides=list(parameter_overrides))
        self.session: MappingSession | None = None
        self._actions: LongWork | None = None
        """None until the parameters are read."""
        self.paused = False
        self._make_mapper = make_mapper
        parameters.declare(self, self._defaults(), live=_all_but_start())
        self.config: NodeConfig = parameters.read(self, NodeConfig())
        for sentence in parameters.unknown_overrides(self, NodeConfig()):
            self.get_logger().warning(sentence)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._actions = LongWork(self)
        self._map_services = Services(self)
        self._health = HealthReport(self)
        self._housekeeping = self.create_timer(
            1.0, self._keep_house, MutuallyExclusiveCallbackGroup(), clock=self.steady_clock
        )

    def _defaults(self) -> NodeConfig:
        """Defaults that suit the reconstructor and the weights the user has chosen."""
        values = to_dict(NodeConfig())
        given = dict(values)
        for name in ("model.reconstructor", "model.checkpoint", "memory.mode", "worker.count"):
            if name in self._parameter_overrides:
                given[name] = self._parameter_overrides[name].value
        preset = preset_for(from_dict(NodeConfig, given))
        return from_dict(NodeConfig, {**values, **preset})

    def configure(self) -> None:
        self.config = self._read_parameters()
        try:
            check_prerequisites(self.config)
        except ValueError as error:
            raise TransitionRefused(str(error)) from error
        self.session = MappingSession(self, self.config, self._make_mapper, run_id=uuid.uuid4().hex)
        try:
            self.session.start()
        except RuntimeError as error:  # the system gives no thread
            self._end_session(save=False)
            raise TransitionRefused(
                f"{error}: too little memory or too many threads; raise the limits of the process "
                f"(ulimit -v, ulimit -u, the memory of its container) and configure again"
            ) from error

    def activate(self) -> None:
        session = self._configured()
        session.set_accepting(not self.paused)
        session.worker.set_running(True)

    def deactivate(self) -> None:
        session = self._configured()
        session.set_accepting(False)
        session.worker.set_running(False)

    def cleanup(self) -> None:
        self._end_session(save=False)

    def stop(self) -> None:
        self._end_session(save=self.config.autosave.on_shutdown)

    def reset_map(self) -> Future:
        return self._commands().reset()

    def set_paused(self, paused: bool) -> str:
        session = self._configured()
        self.paused = paused
        session.set_accepting(self.lifecycle_state == "active" and not paused)
        return "paused" if paused else "running"

    def flush(self) -> Future:
        return self._commands().flush()

    def starter(self, name: str, request: tuple) -> Callable[[Progress], Future]:
        """How long work of that name begins; raises `NotPossible`."""
        commands = self._commands()
        known: dict[str, Callable[..., Future]] = {
            "save_map": commands.save,
            "finalize": commands.finalize,
            "export": commands.export,
            "merge_maps": self._merge_maps,
        }
        begin = known[name]
        return lambda progress: begin(*request, progress)

    def destroy_node(self) -> None:
        """The servers of actions first: they keep the node's handle, and without its end the
        others believe it alive for 20 seconds."""
        if self._actions is not None:
            self._actions.destroy()
        super().destroy_node()

    @property
    def long_work(self) -> LongWork:
        """What takes longer than a service should."""
        assert self._actions is not None
        return self._actions

    def _merge_maps(self, maps: Sequence[str], out: str, progress: Progress) -> Future:
        return merge_in_background(self, self._make_mapper, maps, out, progress)

    def load_map(self, path: str) -> Future:
        return self._commands().load(path)

    def set_mode(self, mode: str) -> Future:
        return self._commands().set_mode(mode)

    def _commands(self) -> MapCommands:
        return self._configured().commands

    def _configured(self) -> MappingSession:
        if self.session is None:
            raise NotPossible(
                f"the node is {self.lifecycle_state}, not configured; trigger configure first"
            )
        return self.session

    def _end_session(self, save: bool) -> None:
        if self.session is not None:
            session, self.session = self.session, None
            self.left_behind += session.end(save)

    def _read_parameters(self) -> NodeConfig:
        try:
            return parameters.read(self, NodeConfig())
        except ValueError as error:
            raise TransitionRefused(str(error)) from error

    def _on_parameters(self, changes) -> SetParametersResult:
        """Accept all or none; what is not live waits for the next configure."""
        answer = parameters.check_update(self.config, changes)
        if not answer.successful or self.session is None:
            return answer
        known = {option.name for option in parameters.walk_options(NodeConfig())}
        late = [
            change.name for change in changes if change.name in known and not is_live(change.name)
        ]
        if late:
            reason = f"{', '.join(late)} can only change while unconfigured; trigger cleanup first"
            return SetParametersResult(successful=False, reason=reason)
        self.config = parameters.updated(self.config, changes)
        self.session.set_config(self.config)
        return answer

    def _keep_house(self) -> None:
        if self.session is not None:
            self.session.keep_house()
        self._health.publish()


def is_live(name: str) -> bool:
    """Whether a parameter can be changed while the node maps."""
    return any(name == live or name.startswith(f"{live}.") for live in LIVE)


def _all_but_start() -> tuple[str, ...]:
    names = {option.name.split(".")[0] for option in parameters.walk_options(NodeConfig())}
    return tuple(sorted(names - {"autostart", "executor"}))


def make_executor(node: MappingNode) -> rclpy.executors.Executor:
    """Executor by the parameter `executor`."""
    if node.config.executor == "multi":
        return rclpy.executors.MultiThreadedExecutor(num_threads=4)
    return rclpy.executors.SingleThreadedExecutor()


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of the executable."""
    return run(MappingNode, args, make_executor, lambda node: node.config.autostart)


if __name__ == "__main__":
    sys.exit(main())
