"""context_sync_node and reconstruction_nodes as processes on real DDS, with a tiny network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

WAITS = {
    "distributed.collective_timeout": 6.0,
    "distributed.connect_timeout": 15.0,
    "distributed.store_timeout": 5.0,
    "distributed.heartbeat_period": 0.1,
    "distributed.heartbeat_timeout": 2.5,
    "distributed.settle_time": 0.5,
}
SYNC, FIRST, SECOND, THIRD = "context_sync_node", "worker_0", "worker_1", "worker_2"


class Robot:
    """The processes of one robot by name, all in its namespace."""

    def __init__(self, namespace: str, checkpoint: Path, logs: Path, workers: int = 2):
        self.namespace, self.workers = namespace, workers
        self._checkpoint, self._logs = checkpoint, logs
        self.processes: dict[str, subprocess.Popen] = {}

    def start(self, *names: str, **parameters) -> None:
        for name in names:
            own = {"workers": self.workers} if name == SYNC else {
                "model.checkpoint": str(self._checkpoint), "model.threads": 1, "model.device": "cpu"
            }  # fmt: skip
            module = SYNC if name == SYNC else "reconstruction_node"
            arguments = ["-r", f"__ns:=/{self.namespace}", "-r", f"__node:={name}"]
            for key, value in {**own, **WAITS, **parameters}.items():
                arguments += ["-p", f"{key}:={json.dumps(value)}"]
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"scal3r_ros.nodes.{module}", "--ros-args", *arguments],
                stdout=self.log(name).open("ab"),
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
            )

    def log(self, name: str) -> Path:
        return self._logs / f"{self.namespace}_{name}.log"

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        self.processes[name].send_signal(number)
        if number == signal.SIGKILL:
            self.processes[name].wait(10)

    def stop(self, name: str, timeout: float = 20.0) -> int:
        """Interrupt and wait; the exit code."""
        self.processes[name].send_signal(signal.SIGINT)
        return self.processes[name].wait(timeout)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(10)


def wait_for(condition, timeout: float, what: str):
    """What `condition` gives, once that is true."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.05)
    return result
