"""The installed node with a real reconstructor, under a camera of 640x480 at 30 Hz.

Is every image heard, does every service answer, and how late do poses come, while structure from
motion or a network computes? The images are those of a recording, forwards and backwards.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ament_index_python.packages import get_package_prefix
from lifecycle_msgs.srv import GetState
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from scal3r_ros.io.inputs import open_source
from scal3r_ros.nodes.base.conversions import fill, header, stamp_to_ns
from scal3r_ros.nodes.bench.driven_node import DrivenNode, ProcessFigures

RATE, WIDTH, HEIGHT = 30.0, 640, 480
FRAME = "camera_optical_frame"
RECORDING = Path(__file__).resolve().parents[3] / "demo" / "loop_room"
HEADING = (
    "               sent  heard   lost  callback p99  silence  machine    "
    "stamp to /tf [s]       RSS MB"
)


@dataclass
class RealResult:
    """What one run was like."""

    reconstructor: str
    sent: int = 0
    received: int = 0
    """Images that reached the callback."""
    lost: int = 0
    """Images that the middleware says it has lost, also those that came another way."""
    dropped: int = 0
    """Images that the queue has left out, because the reconstructor is slower."""
    callback_p99_ms: float = 0.0
    silence: float = 0.0
    """Longest time to an answer of a service, seconds."""
    stall: float = 0.0
    """Longest time, in seconds, for which the machine did not let the measuring process run: what
    any process may have been late by."""
    latency: list[float] = field(default_factory=list)
    """Seconds from the stamp of an image to its pose on /tf."""
    megabytes: float = 0.0
    """Most resident memory, of the node and the processes that it has started."""
    exit_code: int = -1

    @property
    def row(self) -> str:
        """For people, below `HEADING`."""
        late = "no pose"
        if self.latency:
            late = " ".join(f"{s:5.1f}" for s in np.percentile(self.latency, [50, 95, 100]))
        return (
            f"{self.reconstructor:<12}{self.sent:>7}{self.received:>7}{self.lost:>7}"
            f"{self.callback_p99_ms:>11.1f} ms{self.silence:>7.2f} s{self.stall:>9.2f} s  "
            f"{late:<18}{self.megabytes:>10.0f}"
        )


def real_run(reconstructor: str, seconds: float, log: Path) -> RealResult:
    """The node as it is installed, with its defaults."""
    executable = Path(get_package_prefix("scal3r_ros"), "lib", "scal3r_ros", "mapping_node")
    settings = {"model.reconstructor": reconstructor, "input.camera_info": "false"}
    images, result = list(_pictures()), RealResult(reconstructor)
    with DrivenNode(log, settings, executable=[str(executable)]) as driven:
        publisher = driven.node.create_publisher(Image, "image", 10)
        driven.until(publisher.get_subscription_count, "the camera is heard")
        driven.until(lambda: driven.values("inference").get("state") == "ready", "it is loaded")
        driven.spin(2.0)
        listener, watch = _Listener(driven, result), _Watch()
        due = time.monotonic()
        for index in range(round(seconds * RATE)):
            driven.spin(max(due - time.monotonic(), 0.0))
            due = max(due, time.monotonic() - 0.1 / RATE) + 1.0 / RATE
            publisher.publish(_message(images[_there_and_back(index, len(images))]))
            result.sent += 1
            if index % int(RATE) == 0:
                result.megabytes = max(result.megabytes, _megabytes(driven.process.pid))
        driven.spin(2.5)
        listener.finish()
        result.stall = watch.finish()
        result.received = driven.count("input", "received")
        result.lost, result.dropped = (driven.count("input", n) for n in ("lost_image", "dropped"))
        result.callback_p99_ms = float(driven.values("input").get("callback p99 [ms]", "nan"))
        result.exit_code = driven.stop()
    return result


class _Watch:
    """A thread that sleeps, and notes how late it wakes up."""

    def __init__(self) -> None:
        self._worst, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> float:
        """The longest delay, seconds."""
        self._ended.set()
        self._thread.join()
        return self._worst

    def _run(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(0.01):
            now = time.monotonic()
            self._worst, before = max(self._worst, now - before - 0.01), now


class _Listener:
    """Hears transforms, and asks a service all the time."""

    def __init__(self, driven: DrivenNode, result: RealResult) -> None:
        self._result = result
        self._client: Any = driven.node.create_client(GetState, "mapping_node/get_state")
        self._asked_at: float | None = None
        driven.node.create_timer(0.1, self._ask)
        driven.node.create_subscription(TFMessage, "/tf", self._on_tf, 100)

    def finish(self) -> None:
        """What has not been answered yet counts up to now."""
        self._note()

    def _ask(self) -> None:
        if self._asked_at is None and self._client.service_is_ready():
            self._asked_at = time.monotonic()
            self._client.call_async(GetState.Request()).add_done_callback(self._on_answer)

    def _on_answer(self, _: Any) -> None:
        self._note()
        self._asked_at = None

    def _note(self) -> None:
        if self._asked_at is not None:
            waited = time.monotonic() - self._asked_at
            self._result.silence = max(self._result.silence, waited)

    def _on_tf(self, message: TFMessage) -> None:
        now = time.time_ns()
        for transform in message.transforms:
            if transform.child_frame_id == FRAME:
                late = now - stamp_to_ns(transform.header.stamp)
                self._result.latency.append(late * 1e-9)


def _pictures() -> Iterator[np.ndarray]:
    for image in open_source(RECORDING):
        yield image.decode().rgb


def _there_and_back(index: int, count: int) -> int:
    place = index % (2 * count - 2)
    return place if place < count else 2 * count - 2 - place


def _message(rgb: np.ndarray) -> Image:
    large = cv2.resize(rgb, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return Image(
        header=header(FRAME, time.time_ns()),
        height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=fill(large, "B"),
    )  # fmt: skip


def _megabytes(pid: int) -> float:
    """Of a process and all that it has started."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(word) for file in listed for word in file.read_text().split()]
    return ProcessFigures.of(pid).megabytes + sum(_megabytes(child) for child in children)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    _parser.add_argument("reconstructor")
    _parser.add_argument("--seconds", type=float, default=120.0)
    _arguments = _parser.parse_args()
    print(HEADING)
    with tempfile.TemporaryDirectory() as _folder:
        _log = Path(_folder) / "node.log"
        print(real_run(_arguments.reconstructor, _arguments.seconds, _log).row)
