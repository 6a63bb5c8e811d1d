"""context_sync_node and reconstruction_nodes as processes on real DDS, with a tiny network."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

WAITS = {
    "distributed.collective_timeout": 6.0,
    "distributed.connect_timeout": 15.0,
    "distributed.store_timeout": 5.0,
    "distributed.heartbeat_period": 0.1,
    "distributed.heartbeat_timeout": 2.5,
    "distributed.settle_time": 0.5,
}
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "scal3r_ros.workers.coordinator",
        "scal3r_ros.nodes.context_sync_node",
        "scal3r_ros.nodes.mapping_node",
        "scal3r_ros.nodes.reconstruction_node",
        "scal3r_ros.workers.lockstep_worker",
        "scal3r_ros.reconstruct.scal3r.setup",
    ]
)  # torch is imported once and not by every process
SYNC, FIRST, SECOND, THIRD = "context_sync_node", "worker_0", "worker_1", "worker_2"
CRAMPED, ROOM = "worker_cramped", 3
"""A worker whose device holds no chunk of more frames."""
BLIND = "worker_blind"
"""A worker whose first answer has cameras that are not finite."""
MAPPER = "mapping_node"


class Robot:
    """The processes of one robot by name, all in its namespace."""

    def __init__(self, namespace: str, checkpoint: Path, logs: Path, workers: int = 2):
        self.namespace, self.workers = namespace, workers
        self._checkpoint, self._logs = checkpoint, logs
        self.processes: dict[str, multiprocessing.Process] = {}

    def start(self, *names: str, **parameters) -> None:
        for name in names:
            model = {"model.checkpoint": str(self._checkpoint), "model.threads": 1}
            own = {"workers": self.workers} if name == SYNC else {**model, "model.device": "cpu"}
            arguments = ["--ros-args", "-r", f"__ns:=/{self.namespace}", "-r", f"__node:={name}"]
            for key, value in {**own, **WAITS, **parameters}.items():
                arguments += ["-p", f"{key}:={json.dumps(value)}"]
            module = name if name in (SYNC, MAPPER) else "reconstruction_node"
            self.processes[name] = _CONTEXT.Process(
                target=_run, args=(module, arguments, self.log(name), dict(os.environ))
            )
            self.processes[name].start()

    def log(self, name: str) -> Path:
        return self._logs / f"{self.namespace}_{name}.log"

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        os.kill(self.processes[name].pid, number)
        if number == signal.SIGKILL:
            self.processes[name].join(10)

    def stop(self, name: str, timeout: float = 60.0, number: int = signal.SIGINT) -> int | None:
        """Interrupt and wait; the exit code, None if it still runs."""
        os.kill(self.processes[name].pid, number)
        self.processes[name].join(timeout)
        return self.processes[name].exitcode

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.join(10)


def _run(module: str, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    """The process: the node's own `main`."""
    os.environ.update(environment, OMP_NUM_THREADS="1", TORCH_CPP_LOG_LEVEL="ERROR")
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    node = import_module(f"scal3r_ros.nodes.{module}")
    if f"__node:={CRAMPED}" in arguments:
        node._make_worker = _with_little_room(node._make_worker)
    if f"__node:={BLIND}" in arguments:
        node._make_worker = _with_failing_heads(node._make_worker)
    sys.exit(node.main(arguments))


def _with_little_room(make):
    """Workers as `make` gives them, but a chunk of many frames runs out of device memory."""
    from scal3r_ros.reconstruct.interface import OutOfDeviceMemory

    def make_cramped(config):
        worker = make(config)
        stage = worker.engine.stage_round

        def stage_if_there_is_room(chunks, **options):
            if any(len(chunk.frames) > ROOM for chunk in chunks):
                raise OutOfDeviceMemory("the chunk does not fit into the memory of cuda:7")
            return stage(chunks, **options)

        worker.engine.stage_round = stage_if_there_is_room
        return worker

    return make_cramped


def _with_failing_heads(make):
    def make_blind(config):
        from crew import spoil

        worker = make(config)
        spoil(worker.engine, "cameras")
        return worker

    return make_blind


def wait_for(condition, timeout: float, what: str):
    """What `condition` gives, once that is true."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.05)
    return result
