"""The real mapping_node as a process, its network replaced by one whose answers are known.

    python test/nodes/oracle_node.py '{"frames": 60}' --ros-args -p chunk.size:=8

The JSON text says which city is driven through and how long a chunk takes; `constant` gives the
same large chunk every time.
"""

import json
import sys
import time
from dataclasses import replace

import numpy as np

from scal3r_ros.bench.city import City, drive
from scal3r_ros.bench.oracle import OracleReconstructor, Spoil
from scal3r_ros.nodes.conversions import stamp_to_ns
from scal3r_ros.nodes.image_input import ImageInput
from scal3r_ros.nodes.interruptible import InterruptibleReconstructor
from scal3r_ros.nodes.managed_node import run
from scal3r_ros.nodes.mapping_node import MappingNode, make_executor
from scal3r_ros.pipeline.reconstructor import MemoryState, OutOfDeviceMemory, ReconstructionFailed
from scal3r_ros.records import Chunk, ChunkPrediction

DEFAULTS = {
    "frames": 60, "length": 30.0, "width": 64, "height": 48, "route": "EN", "wobble": 0.0,
    "seconds": 0.0, "load_seconds": 0.0, "constant": False, "fits": 10**6, "fail_from": 10**6,
    "slow_from": 0, "drift": 0.0,
}  # fmt: skip


def make_city(options: dict) -> City:
    names = ("frames", "length", "width", "height", "route", "wobble")
    return drive(**{name: options[name] for name in names})


class StampOracle(OracleReconstructor):
    """Knows frames by their stamps, so that dropped frames do not confuse it."""

    def __init__(self, options: dict) -> None:
        super().__init__(make_city(options), Spoil(scale_drift=options["drift"]))
        self.options = options
        stamps = [self.city.stamp_ns(i) for i in range(len(self.city))]
        self.index_of = {stamp: i for i, stamp in enumerate(stamps)}
        self.absorbed: list[int] = []
        self.chunks: list[Chunk] = []

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        if chunk.index >= self.options["slow_from"]:
            time.sleep(self.options["seconds"])
        if len(chunk.frames) > self.options["fits"]:
            raise OutOfDeviceMemory(f"{len(chunk.frames)} frames do not fit")
        if chunk.index >= self.options["fail_from"]:
            raise RuntimeError("the simulated device is lost")
        indices = [self.index_of.get(frame.stamp_ns) for frame in chunk.frames]
        if None in indices:
            raise ReconstructionFailed("a frame is not from the city")
        frames = tuple(replace(f, id=i) for f, i in zip(chunk.frames, indices))
        known = Chunk(chunk.index, chunk.session, frames, (), chunk.kind)
        if contribute:
            self.absorbed.append(chunk.index)
            self.chunks.append(chunk)
        return replace(super().reconstruct(known, contribute), frame_ids=chunk.frame_ids)

    def finalize(self) -> list[ChunkPrediction]:
        """The same chunks, as a memory that knows the whole run would see them: without drift."""
        self.spoil = Spoil()
        return [self.reconstruct(chunk, contribute=False) for chunk in self.chunks]

    def state(self) -> MemoryState:
        return MemoryState(
            "oracle", "oracle", self.version, {"absorbed": np.array(self.absorbed, np.int64)}
        )

    def restore(self, state: MemoryState) -> None:
        super().restore(state)
        self.absorbed = state.arrays["absorbed"].tolist()


class ConstantReconstructor(StampOracle):
    """Every chunk looks the same: straight motion along a rough wall, many pixels."""

    def __init__(self, options: dict) -> None:
        super().__init__({**options, "frames": 10})
        self.rows = 160

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        time.sleep(self.options["seconds"])
        count, rows = len(chunk.frames), self.rows
        rng = np.random.default_rng(0)
        depth = rng.uniform(2.0, 8.0, (rows, rows)).astype(np.float32)
        poses = np.tile(np.eye(4), (count, 1, 1))
        poses[:, 0, 3] = 0.05 * (np.arange(count) - chunk.reference_index)
        matrix = np.array([[0.8 * rows, 0, rows / 2], [0, 0.8 * rows, rows / 2], [0, 0, 1.0]])
        return ChunkPrediction(
            chunk.index,
            chunk.frame_ids,
            poses,
            np.tile(matrix, (count, 1, 1)),
            np.tile(depth, (count, 1, 1)),
            np.ones((count, rows, rows), np.float32),
            np.full((count, rows, rows, 3), 128, np.uint8),
        )


TIMES_OF = 360
"""Image callbacks whose times are printed together."""


class CallbackTimes:
    """Measures every image callback from inside the process."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.waits: list[float] = []
        original = ImageInput._on_image

        def timed(receiver, message):
            began = time.monotonic()
            original(receiver, message)
            self.seconds.append(time.monotonic() - began)
            self.waits.append(began - stamp_to_ns(message.header.stamp) * 1e-9)
            if len(self.seconds) == TIMES_OF:
                print("TIMES", self.report(), flush=True)

        ImageInput._on_image = timed

    def report(self) -> str:
        """Median, 99th percentile and largest of the callbacks since the last report."""
        measured = {"callback": self.seconds, "arrival": self.waits}
        text = json.dumps(
            {k: np.percentile(v, [50, 99, 100]).round(6).tolist() for k, v in measured.items()}
        )
        self.seconds.clear()
        self.waits.clear()
        return text


def main() -> int:
    options = {**DEFAULTS, **json.loads(sys.argv[1])}
    CallbackTimes()

    def make_mapper(node, config):
        from scal3r_ros.pipeline.mapper import Mapper

        time.sleep(options["load_seconds"])
        kind = ConstantReconstructor if options["constant"] else StampOracle
        reconstructor = InterruptibleReconstructor(kind(options))
        return Mapper(config, reconstructor), reconstructor

    return run(
        lambda: MappingNode(make_mapper),
        sys.argv[:1] + sys.argv[2:],
        make_executor,
        lambda node: node.config.autostart,
    )


if __name__ == "__main__":
    sys.exit(main())
