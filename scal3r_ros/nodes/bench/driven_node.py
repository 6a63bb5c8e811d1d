"""`mapping_node` as a process of its own, usually with a stub for the network, and what can be seen
of it: its diagnostics, its services, and what the system says about the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor

NAMESPACE = "/scal3r_bench"
PATIENCE = 60.0
"""Seconds that a busy machine may take for what an idle one does at once."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ProcessFigures:
    """What a process has used up to now, by the system's account."""

    cpu_seconds: float
    megabytes: float
    """Resident."""
    files: int
    """Open descriptors."""
    threads: int
    at: float
    """When, by the steady clock, seconds."""

    @staticmethod
    def of(pid: int) -> ProcessFigures:
        folder = Path("/proc") / str(pid)
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])  # user and system, after pid, name and state
        pages, page = int(fields[21]), os.sysconf("SC_PAGE_SIZE")
        files = len(list((folder / "fd").iterdir()))
        seconds, threads = ticks / os.sysconf("SC_CLK_TCK"), int(fields[17])
        return ProcessFigures(seconds, pages * page / 1e6, files, threads, time.monotonic())


def start_node(
    output: IO[str],
    settings: Mapping[str, Any],
    stub: Mapping[str, float] | None = None,
    executable: Sequence[str] = (sys.executable, "-m", "scal3r_ros.nodes.bench.stub"),
) -> subprocess.Popen:
    """The node with the parameters `settings`; `stub` are options of `stub.py`, which is run unless
    another `executable` is named."""
    parameters = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    options = [word for name, value in (stub or {}).items() for word in (f"--{name}", str(value))]
    command = [*executable, *options, "--ros-args"]
    command += ["-r", f"__ns:={NAMESPACE}", "--log-level", "error", *parameters]
    return subprocess.Popen(command, stdout=output)


class DrivenNode:
    """A context: the process, and a node here that publishes to it and hears it."""

    def __init__(
        self,
        log: Path,
        settings: Mapping[str, Any],
        stub: Mapping[str, float] | None = None,
        **about: Sequence[str],
    ) -> None:
        """As `start_node`."""
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        self.log = log
        self._handle = log.open("w")
        self.process = start_node(self._handle, settings, stub, **about)
        rclpy.init()
        self.node = rclpy.create_node("driver", namespace=NAMESPACE)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._health: dict[str, dict[str, str]] = {}
        self.messages: dict[str, str] = {}
        """What the newest diagnostics say, by concern."""
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_health, 10)

    def __enter__(self) -> DrivenNode:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._handle.close()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()

    def figures(self) -> ProcessFigures:
        return ProcessFigures.of(self.process.pid)

    def values(self, concern: str) -> Mapping[str, str]:
        """The newest diagnostics of a concern; empty before the first."""
        return self._health.get(concern, {})

    def count(self, concern: str, name: str) -> int:
        return int(self.values(concern).get(name, 0))

    def spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def until(
        self, condition: Callable[[], Answer], what: str, seconds: float = PATIENCE
    ) -> Answer:
        """Spin until the condition holds, and give what it gave. Raises `TimeoutError`, or
        `RuntimeError` with the end of the log if the node has ended."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if self.process.poll() is not None:
                end = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the node ended with {self.process.returncode}: {end}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s; last {self._health}")
            self._executor.spin_once(timeout_sec=0.02)
        return found

    def call(self, kind: Any, name: str, seconds: float = PATIENCE, **fields: Any) -> Any:
        """The answer of a service of the node."""
        client: Any = self.node.create_client(kind, f"mapping_node/{name}")
        self.until(client.service_is_ready, f"service {name}", seconds)
        future = client.call_async(kind.Request(**fields))
        answer = self.until(lambda: future.done() and future.result(), f"answer of {name}", seconds)
        self.node.destroy_client(client)
        return answer

    def stop(self) -> int:
        """The exit code after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def _on_health(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.messages[status.name.rpartition(": ")[2]] = status.message
            self._health[status.name.rpartition(": ")[2]] = {
                item.key: item.value for item in status.values
            }
