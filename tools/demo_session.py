"""The processes of the demo and the ROS client that conducts them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from std_srvs.srv import SetBool, Trigger

from scal3r_ros.msg import ChunkTrajectory
from scal3r_ros.srv import Export, SaveMap

NODE = "mapping_node"
PAUSE_ABOVE, GO_ON_BELOW = 90, 30
"""Frames waiting in the node at which the bag is paused, and played again."""


class DemoFailed(RuntimeError):
    """The demo cannot go on; the message says why and where to look."""


class Processes:
    """Children in process groups of their own; all of them are gone on exit."""

    def __init__(self, log_folder: Path) -> None:
        self._logs = log_folder
        self._logs.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._children):
            self.stop(name, seconds=8.0)

    def start(self, name: str, command: list[str]) -> None:
        """Start a child; its output goes to a file named after it."""
        with self.log(name).open("w") as output:
            self._children[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def logged_address(self, name: str) -> str:
        """First web address in a child's output; empty if there is none."""
        found = re.search(r"https?://[^\s\x1b]+", self.log(name).read_text(errors="replace"))
        return found[0] if found else ""

    def exit_code(self, name: str) -> int | None:
        """None while the child runs."""
        return self._children[name].poll()

    def require_running(self, name: str) -> None:
        """`DemoFailed` if a child that should run has ended."""
        code = self.exit_code(name)
        if code is not None:
            raise DemoFailed(f"{name} ended with code {code}; its output: {self.log(name)}")

    def stop(self, name: str, seconds: float) -> int:
        """Interrupt, and kill what is left of its group after `seconds`; returns the exit code."""
        child = self._children.pop(name)
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        return code


class Conductor:
    """ROS client of the mapper and the player: progress, back-pressure, services."""

    def __init__(self, processes: Processes, say: Callable[[str], None]) -> None:
        self._processes, self._say = processes, say
        self.node = rclpy.create_node("demo")
        self.node.create_subscription(
            ChunkTrajectory, f"/{NODE}/trajectory", self._on_trajectory, 50
        )
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._pause = self.node.create_client(SetBool, "/bag_player/set_paused")
        self._paused = False
        self.health: dict[str, dict[str, str]] = {}
        """Newest values of each concern that the node reports."""
        self.problems: dict[str, str] = {}
        """Newest message of each concern that is not well."""
        self.corrections = 0

    def wait_until_ready(self, seconds: float) -> None:
        """Until the node has loaded its weights."""
        self._wait(lambda: self._state() == "ready", seconds, "get ready")

    def watch_replay(self, seconds: float) -> None:
        """Until the player has ended; it is paused while the mapper has too many frames waiting."""

        def ended() -> bool:
            waiting = int(self.health.get("inference", {}).get("queue depth", 0))
            if waiting > PAUSE_ABOVE and not self._paused:
                self._set_paused(True)
            elif waiting < GO_ON_BELOW and self._paused:
                self._set_paused(False)
            return self._processes.exit_code("play") is not None

        self._wait(ended, seconds, "play the bag")
        if code := self._processes.exit_code("play"):
            log = self._processes.log("play")
            raise DemoFailed(f"the bag could not be played (code {code}): {log.read_text()[-500:]}")

    def flush(self, seconds: float) -> str:
        """Map the tail of the stream."""
        return self._call(Trigger, "flush", Trigger.Request(), seconds).message

    def save(self, folder: Path) -> str:
        """Save the map so that it can be loaded again."""
        return self._call(SaveMap, "save_map", SaveMap.Request(path=str(folder)), 60.0).path

    def export(self, folder: Path) -> list[str]:
        """Write trajectory, cloud and report."""
        return list(self._call(Export, "export", Export.Request(path=str(folder)), 120.0).files)

    def spin(self, seconds: float) -> None:
        """Take messages for a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            rclpy.spin_once(self.node, timeout_sec=0.1)

    def _state(self) -> str:
        state = self.health.get("inference", {}).get("state", "")
        if state == "failed":
            raise DemoFailed(f"the mapper cannot work: {self.problems['inference']}")
        return state

    def _call(self, kind, name: str, request, seconds: float):
        client = self.node.create_client(kind, f"/{NODE}/{name}")
        self._wait(client.service_is_ready, 10.0, f"offer {name}")
        end = time.monotonic() + seconds
        while True:  # long work answers now and then that it goes on
            future = client.call_async(request)
            self._wait(future.done, seconds, f"answer {name}")
            answer = future.result()
            if "still running" not in answer.message or time.monotonic() > end:
                break
        if not answer.success:
            raise DemoFailed(f"{name}: {answer.message}")
        return answer

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self._processes.require_running(NODE)
            if time.monotonic() > deadline:
                log = self._processes.log(NODE)
                raise DemoFailed(f"the mapper did not {what} within {seconds:.0f} s; see {log}")
            rclpy.spin_once(self.node, timeout_sec=0.1)

    def _set_paused(self, paused: bool) -> None:
        self._paused = paused
        self._pause.call_async(SetBool.Request(data=paused))

    def _on_trajectory(self, message: ChunkTrajectory) -> None:
        self.corrections += message.corrected
        seconds = sum(message.timing_seconds)
        note = ", earlier poses corrected" if message.corrected else ""
        self._say(
            f"chunk {message.chunk_index}: {len(message.frame_ids)} poses, {seconds:.1f} s, "
            f"map revision {message.map_revision}{note}"
        )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            node, _, concern = status.name.partition(": ")
            if node != NODE:
                continue
            self.health[concern] = {item.key: item.value for item in status.values}
            self.problems.pop(concern, None)
            if status.level != b"\x00":
                self.problems[concern] = status.message


def isolate(log_folder: Path) -> None:
    """Talk on this machine only, on a domain of our own unless the user chose one."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_LOG_DIR"] = str(log_folder)
    os.environ.pop("ROS_STATIC_PEERS", None)


def executable(name: str) -> str:
    """Path of an installed executable of the package."""
    return str(Path(sys.prefix) / "lib" / "scal3r_ros" / name)
