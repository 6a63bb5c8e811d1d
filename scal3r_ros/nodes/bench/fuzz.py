"""Random messages to the node over DDS, bad ones among them: is it alive, and is each counted?

Real node, a stub in place of the network, once with raw and once with compressed images. Messages
go out in bursts that the middleware holds; after each burst the node's own counters must show
every message of it, and at the end the map must be mapped on, saved and exported.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from scal3r_ros.nodes.bench.driven_node import DrivenNode
from scal3r_ros.nodes.bench.fuzz_messages import MAX_PIXELS, Fuzzer
from scal3r_ros.srv import Export, SaveMap

BURST = 200
DEPTH = 400
"""Messages that the middleware holds on both sides: more than a burst."""
SETTINGS = {
    "chunk.size": 20, "chunk.overlap": 10, "loop.enabled": "false", "map.max_megabytes": 8.0,
    "queue.policy": "block", "queue.max_frames": 2 * BURST, "input.max_pixels": MAX_PIXELS,
    "input.odometry": "true", "map.alignment": "imu", "publish.map_interval": 10.0,
    "qos.image.reliability": "reliable", "qos.image.depth": DEPTH,
    "qos.odometry.reliability": "reliable", "qos.odometry.depth": DEPTH,
    "qos.imu.reliability": "reliable", "qos.imu.depth": DEPTH,
}  # fmt: skip
STUB = {"seconds": 0.0, "rows": 40}
TOPICS = {"camera_info": CameraInfo, "odom": Odometry, "imu": Imu, "tf": TFMessage}
REFUSED = ("unstamped", "duplicate", "late", "ignored")
"""What the guard of the stamps counts of images that it does not let through."""


@dataclass
class FuzzResult:
    """What was sent, and what the node says of it."""

    transport: str
    sent: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """Of what was sent, what should be left out."""
    counted: dict[str, int] = field(default_factory=dict)
    mapped: int = 0
    exit_code: int = -1

    @property
    def unaccounted(self) -> dict[str, int]:
        """Messages that no counter shows, by kind; negative if one was counted twice."""
        missing = {
            kind: number - self.counted[f"malformed_{kind}"]
            for kind, number in self.left_out.items()
            if kind != "image"
        }
        seen = ("decoded", "malformed", "refused", "gated", "dropped", "unaccepted")
        missing["image"] = self.sent["image"] - sum(self.counted[name] for name in seen)
        missing["bad image"] = self.left_out["image"] - self.counted["malformed"]
        return {kind: number for kind, number in missing.items() if number}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=100_000, help="how many are sent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/bench/fuzz.json"))
    parser.add_argument("--quick", action="store_true", help="a few hundred messages")


def run(args: argparse.Namespace) -> list[FuzzResult]:
    """Send, print, write `--out`; raises `RuntimeError` if the node has ended."""
    messages = 2 * BURST if args.quick else args.messages
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for transport in ("raw", "compressed"):
            results.append(fuzz(transport, messages // 2, args.seed, Path(folder)))
            print(sentence(results[-1]), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(as_json(results))
    return results


def fuzz(transport: str, messages: int, seed: int, folder: Path) -> FuzzResult:
    """A node of its own hears `messages` messages."""
    compressed, result = transport == "compressed", FuzzResult(transport)
    fuzzer = Fuzzer(seed, compressed)
    settings = {**SETTINGS, "input.image_transport": transport}
    with DrivenNode(folder / f"{transport}.log", settings, STUB) as driven:
        images = ("image/compressed", CompressedImage) if compressed else ("image", Image)
        kinds = {"image": images, **{name: (name, kind) for name, kind in TOPICS.items()}}
        kinds["tf"] = "/tf", TFMessage
        publishers = {
            name: driven.node.create_publisher(kind, topic, DEPTH)
            for name, (topic, kind) in kinds.items()
        }
        driven.until(
            lambda: all(p.get_subscription_count() for p in publishers.values()), "all are heard"
        )
        driven.until(lambda: driven.values("inference").get("state") == "ready", "the stub is up")
        while (left := messages - sum(result.sent.values())) > 0:
            samples = [fuzzer.sample() for _ in range(min(BURST, left))]
            for sample in samples:
                publishers[sample.kind].publish(sample.message)
                result.sent[sample.kind] += 1
                result.left_out[sample.kind] += sample.left_out
            driven.until(lambda: _all_heard(driven, result), f"every message counted: {result}")
        _finish(driven, result, folder)
    return result


def as_json(results: list[FuzzResult]) -> str:
    """For a file; `asdict` would build counters from pairs and count those."""
    return json.dumps([vars(result) for result in results], indent=1)


def sentence(result: FuzzResult) -> str:
    """For people."""
    return (
        f"{result.transport}: {sum(result.sent.values())} messages sent "
        f"({', '.join(f'{n} {kind}' for kind, n in sorted(result.sent.items()))}), "
        f"{sum(result.left_out.values())} to be left out; unaccounted: "
        f"{result.unaccounted or 'none'}; {result.mapped} frames mapped, "
        f"{result.counted['failed callbacks']} callbacks failed, exit code {result.exit_code}"
    )


def _all_heard(driven: DrivenNode, result: FuzzResult) -> bool:
    """Whether the counters show everything that was sent of what they count."""
    counted = {name: driven.count("input", f"malformed_{name}") for name in TOPICS}
    return driven.count("input", "received") == result.sent["image"] and all(
        counted[name] == result.left_out[name] for name in TOPICS
    )


def _finish(driven: DrivenNode, result: FuzzResult, folder: Path) -> None:
    """Whatever was sent, the map can be finished, saved and exported."""
    base = folder / result.transport
    answers = {
        "flush": driven.call(Trigger, "flush"),
        "save_map": driven.call(SaveMap, "save_map", path=f"{base}_map"),
        "export": driven.call(Export, "export", path=f"{base}_export"),
    }
    for name, answer in answers.items():
        if not answer.success:
            raise RuntimeError(f"{name}: {answer.message}")
    driven.spin(2.5)  # the next report is of the end
    names = ["decoded", "malformed", "gated", "dropped", "unaccepted", "failed callbacks"]
    names += [f"malformed_{name}" for name in TOPICS]
    result.counted = {name: driven.count("input", name) for name in names}
    result.counted["refused"] = sum(driven.count("time", name) for name in REFUSED)
    result.mapped = driven.count("map", "frames")
    result.exit_code = driven.stop()


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
