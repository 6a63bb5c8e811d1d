"""The node over a long run: does it cost the same at the end as at the beginning?

Real node, real DDS, a stub that takes no time in place of the network, and a map that has filled
its budget after the first frames. What is measured is the process: processor time per frame,
memory, descriptors and threads, for every so many frames.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger

from scal3r_ros.msg import ChunkTrajectory
from scal3r_ros.nodes.base.conversions import fill, header
from scal3r_ros.nodes.bench.driven_node import DrivenNode, ProcessFigures

WIDTH, HEIGHT = 64, 48
CHUNK, OVERLAP = 20, 10
UNDER_WAY = 3 * CHUNK
"""Images that are sent and not mapped yet, at most: less than queue and middleware hold."""
SETTINGS = {
    "chunk.size": CHUNK, "chunk.overlap": OVERLAP, "loop.enabled": "false",
    "input.camera_info": "false", "map.max_megabytes": 8.0, "queue.policy": "block",
    "qos.image.reliability": "reliable", "qos.image.depth": 2 * UNDER_WAY, "gate.max_gap": 0.0,
}  # fmt: skip
STUB = {"seconds": 0.0, "rows": 40}
PERIOD_NS = 33_333_333
HEADING = "  frames  ms/frame  RSS MB  map MB  files  threads"


@dataclass(frozen=True)
class Window:
    """Some frames in a row."""

    frames: int
    """Sent since the start, at its end."""
    cpu_milliseconds: float
    """Of the whole process, per frame, without what it also takes when no frame comes: on a busy
    machine a frame takes longer by the clock, and timers run meanwhile."""
    megabytes: float
    map_megabytes: float
    files: int
    threads: int


@dataclass(frozen=True)
class SoakResult:
    """What the run was like, window by window, and whether every frame is accounted for."""

    windows: tuple[Window, ...]
    sent: int
    received: int
    decoded: int
    mapped: int
    exit_code: int

    @property
    def settled(self) -> tuple[Window, ...]:
        """The windows after the first one, which fills the map and the caches."""
        return self.windows[1:] or self.windows

    @property
    def cost_growth(self) -> float:
        """Share by which a frame costs more in the last quarter than in the first."""
        cost = [window.cpu_milliseconds for window in self.settled]
        quarter = max(1, len(cost) // 4)
        return float(np.mean(cost[-quarter:]) / np.mean(cost[:quarter]) - 1.0)

    @property
    def megabytes_per_thousand(self) -> float:
        """Growth of memory beyond that of the map's points, by least squares."""
        frames = np.array([window.frames for window in self.settled]) / 1000.0
        beyond = np.array([w.megabytes - w.map_megabytes for w in self.settled])
        return float(np.polyfit(frames, beyond, 1)[0]) if len(frames) > 1 else 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, default=10_000, help="how many images are sent")
    parser.add_argument("--out", type=Path, default=Path("out/bench/soak.json"))
    parser.add_argument("--quick", action="store_true", help="a few hundred frames")


def run(args: argparse.Namespace) -> SoakResult:
    """Measure once, print the table, write `--out`."""
    frames = 400 if args.quick else args.frames
    with tempfile.TemporaryDirectory() as folder:
        print(HEADING, flush=True)
        result = soak(frames, max(200, frames // 10), Path(folder) / "node.log", _print)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(asdict(result), indent=1))
    print(sentence(result))
    return result


def soak(
    frames: int, window: int, log: Path, told: Callable[[Window], None] = lambda window: None
) -> SoakResult:
    """Send `frames` images as fast as they are mapped; `told` hears of each window."""
    with DrivenNode(log, SETTINGS, STUB) as driven:
        camera = Camera(driven)
        driven.until(lambda: camera.heard_by > 0, "the camera is heard")
        driven.until(lambda: driven.values("inference").get("state") == "ready", "the stub is up")
        idle = _idle_share(driven)
        windows, before = [], driven.figures()
        for first in range(0, frames, window):
            last = min(first + window, frames)
            camera.show(first, last)
            driven.spin(1.2)  # so that the diagnostics are about what was sent
            now = driven.figures()
            windows.append(_window(last, last - first, before, now, idle, driven))
            told(windows[-1])
            before = now
        answer = driven.call(Trigger, "flush")
        if not answer.success:
            raise RuntimeError(f"flush: {answer.message}")
        driven.until(lambda: driven.count("input", "processed") == frames, "all counted")
        received, decoded = (driven.count("input", name) for name in ("received", "decoded"))
        driven.until(lambda: camera.path_length == frames, "the whole path after flush")
        return SoakResult(
            tuple(windows), frames, received, decoded, camera.path_length, driven.stop()
        )


def row(window: Window) -> str:
    """For people, below `HEADING`."""
    return (
        f"{window.frames:>8}{window.cpu_milliseconds:>10.2f}{window.megabytes:>8.0f}"
        f"{window.map_megabytes:>8.1f}{window.files:>7}{window.threads:>9}"
    )


def sentence(result: SoakResult) -> str:
    """For people."""
    return (
        f"{result.sent} sent, {result.received} received, {result.decoded} decoded, "
        f"{result.mapped} mapped; a frame costs {100 * result.cost_growth:+.0f} % at the end, "
        f"memory beyond the map grows by {result.megabytes_per_thousand:.2f} MB per 1000 frames"
    )


class Camera:
    """Sends noise, and listens as a viewer would."""

    def __init__(self, driven: DrivenNode) -> None:
        self._driven = driven
        node = driven.node
        self._publisher = node.create_publisher(Image, "image", 2 * UNDER_WAY)
        self.path_length, self._newest_ns = 0, 0
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(
            ChunkTrajectory, "mapping_node/trajectory", self._on_trajectory, 50
        )
        node.create_subscription(PathMessage, "mapping_node/path", self._on_path, latched)
        node.create_subscription(PointCloud2, "mapping_node/cloud", lambda raw: None, 200, raw=True)
        pixels = np.random.default_rng(0).integers(0, 255, WIDTH * HEIGHT * 3, dtype=np.uint8)
        self._data = fill(pixels, "B")

    @property
    def heard_by(self) -> int:
        return self._publisher.get_subscription_count()

    def show(self, first: int, last: int) -> None:
        """The images of these numbers, a few ahead of what is mapped."""
        for index in range(first, last):
            self._until_mapped(index - UNDER_WAY)
            self._publisher.publish(
                Image(
                    header=header("camera_optical_frame", _stamp_ns(index)),
                    height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=self._data,
                )
            )  # fmt: skip
        self._until_mapped(last - CHUNK - OVERLAP)  # the last ones wait for more

    def _until_mapped(self, count: int) -> None:
        self._driven.until(lambda: self._mapped > count, f"{count} images mapped")

    @property
    def _mapped(self) -> int:
        return self._newest_ns // PERIOD_NS

    def _on_trajectory(self, message: ChunkTrajectory) -> None:
        if message.stamps_ns:
            self._newest_ns = max(self._newest_ns, max(message.stamps_ns))

    def _on_path(self, message: PathMessage) -> None:
        self.path_length = len(message.poses)


def _print(window: Window) -> None:
    print(row(window), flush=True)


def _stamp_ns(index: int) -> int:
    return (index + 1) * PERIOD_NS


def _idle_share(driven: DrivenNode) -> float:
    """Processor seconds a second of the node without frames."""
    before = driven.figures()
    driven.spin(3.0)
    now = driven.figures()
    return (now.cpu_seconds - before.cpu_seconds) / (now.at - before.at)


def _window(
    sent: int,
    frames: int,
    before: ProcessFigures,
    now: ProcessFigures,
    idle: float,
    driven: DrivenNode,
) -> Window:
    spent = now.cpu_seconds - before.cpu_seconds - idle * (now.at - before.at)
    return Window(
        sent,
        1e3 * spent / frames,
        now.megabytes,
        float(driven.values("map").get("memory [MB]", 0.0)),
        now.files,
        now.threads,
    )


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
