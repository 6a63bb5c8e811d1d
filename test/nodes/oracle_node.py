"""The real mapping_node as a process, its network replaced by one whose answers are known.

    python test/nodes/oracle_node.py '{"frames": 60}' --ros-args -p chunk.size:=8

The JSON text says which city is driven through and how long a chunk takes; `constant` gives the
same large chunk every time, `configured` takes the network that the parameters name.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from scal3r_ros.bench.city import City, drive
from scal3r_ros.bench.oracle import OracleReconstructor, Spoil
from scal3r_ros.nodes.base.managed_node import run
from scal3r_ros.nodes.bench.stub import ConstantReconstructor
from scal3r_ros.nodes.input.image_input import ImageInput
from scal3r_ros.nodes.mapping import loading
from scal3r_ros.nodes.mapping_node import MappingNode, make_executor
from scal3r_ros.pipeline.localisation import LocalisingMapper
from scal3r_ros.reconstruct.interface import MemoryState, OutOfDeviceMemory, ReconstructionFailed
from scal3r_ros.reconstruct.interruptible import InterruptibleReconstructor
from scal3r_ros.records import Chunk, ChunkPrediction

DEFAULTS = {
    "frames": 60, "length": 30.0, "width": 64, "height": 48, "route": "EN", "wobble": 0.0,
    "seconds": 0.0, "load_seconds": 0.0, "constant": False, "fits": 10**6, "fail_from": 10**6,
    "slow_from": 0, "drift": 0.0, "finalize_seconds": 0.0,
    "configured": False,
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

    def finalize(self) -> Iterator[ChunkPrediction]:
        """The same chunks, as a memory that knows the whole run would see them: without drift."""
        self.spoil = Spoil()
        for chunk in self.chunks:
            time.sleep(self.options["finalize_seconds"])
            yield self.reconstruct(chunk, contribute=False)

    def state(self) -> MemoryState:
        return MemoryState(
            "oracle", "oracle", self.version, {"absorbed": np.array(self.absorbed, np.int64)}
        )

    def restore(self, state: MemoryState) -> None:
        super().restore(state)
        self.absorbed = state.arrays["absorbed"].tolist()


class Watch:
    """Counts the image callbacks, and those that ran while the worker was busy with a chunk."""

    def __init__(self) -> None:
        self.busy, self.counts = False, {"callbacks": 0, "while_busy": 0}
        on_image, add = ImageInput._on_image, LocalisingMapper.add

        def counted(receiver, message):
            self.counts["callbacks"] += 1
            self.counts["while_busy"] += self.busy
            on_image(receiver, message)

        def watched(mapper, *args, **more):
            self.busy = True
            try:
                return add(mapper, *args, **more)
            finally:
                self.busy = False

        ImageInput._on_image, LocalisingMapper.add = counted, watched


def main() -> int:
    options = {**DEFAULTS, **json.loads(sys.argv[1])}
    watch = Watch()

    def make_mapper(node, config):
        time.sleep(options["load_seconds"])
        if options["configured"]:
            return loading.make_mapper(node, config)
        constant = options["constant"]
        inner = ConstantReconstructor() if constant else StampOracle(options)
        reconstructor = InterruptibleReconstructor(inner)
        return LocalisingMapper(config, reconstructor), reconstructor

    class WatchedNode(MappingNode):
        def stop(self) -> None:
            print("WATCH", json.dumps(watch.counts), flush=True)
            super().stop()

    return run(
        lambda: WatchedNode(make_mapper),
        sys.argv[:1] + sys.argv[2:],
        make_executor,
        lambda node: node.config.autostart,
    )


if __name__ == "__main__":
    sys.exit(main())
