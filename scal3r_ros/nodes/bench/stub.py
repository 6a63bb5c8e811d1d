"""`mapping_node` with a network that takes constant time, and a stopwatch on its image callback.

Run by `bench`; prints one line of JSON when it is stopped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from scal3r_ros.mapping.chunking import middle_position
from scal3r_ros.nodes.base.conversions import stamp_to_ns
from scal3r_ros.nodes.base.managed_node import run
from scal3r_ros.nodes.input.image_input import ImageInput
from scal3r_ros.nodes.mapping_node import MappingNode, make_executor
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct.interface import MemoryState, ReconstructionFailed
from scal3r_ros.reconstruct.interruptible import InterruptibleReconstructor
from scal3r_ros.records import Chunk, ChunkPrediction

CHUNK_SECONDS = 0.2
ROWS = 160
"""Pixels of the square depth maps; each frame adds as many points as it has pixels."""


class ConstantReconstructor:
    """Every chunk looks the same: straight motion along a rough wall, many pixels."""

    name = "constant"
    round_size: int | None = 1

    def __init__(self, seconds: float = CHUNK_SECONDS) -> None:
        self.seconds = seconds

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        time.sleep(self.seconds)
        count = len(chunk.frames)
        depth = np.random.default_rng(0).uniform(2.0, 8.0, (ROWS, ROWS)).astype(np.float32)
        poses = np.tile(np.eye(4), (count, 1, 1))
        poses[:, 0, 3] = 0.05 * (np.arange(count) - middle_position(count))
        matrix = np.array([[0.8 * ROWS, 0, ROWS / 2], [0, 0.8 * ROWS, ROWS / 2], [0, 0, 1.0]])
        return ChunkPrediction(
            chunk.index,
            chunk.frame_ids,
            poses,
            np.tile(matrix, (count, 1, 1)),
            np.tile(depth, (count, 1, 1)),
            np.ones((count, ROWS, ROWS), np.float32),
            np.full((count, ROWS, ROWS, 3), 128, np.uint8),
        )

    def reconstruct_round(
        self, chunks: Sequence[Chunk]
    ) -> list[ChunkPrediction | ReconstructionFailed]:
        return [self.reconstruct(chunk) for chunk in chunks]

    def reset(self) -> None:
        """There is no memory."""

    def state(self) -> MemoryState:
        return MemoryState(self.name, "", 0)

    def restore(self, state: MemoryState) -> None:
        """There is no memory."""


class CallbackTimes:
    """Measures every image callback from inside the process."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.delays: list[float] = []
        """From the stamp, which is of the steady clock, to the start of the callback."""

    def wrap(self, callback: Callable) -> Callable:
        def timed(receiver, message):
            began = time.monotonic()
            callback(receiver, message)
            self.seconds.append(time.monotonic() - began)
            self.delays.append(began - stamp_to_ns(message.header.stamp) * 1e-9)

        return timed

    def report(self) -> dict:
        """Count, and median, 99th percentile and maximum in milliseconds."""
        measured = {"callback_ms": self.seconds, "delay_ms": self.delays}
        return {
            "received": len(self.seconds),
            **{
                name: (1e3 * np.percentile(values, [50, 99, 100])).round(3).tolist()
                for name, values in measured.items()
                if values
            },
        }


def make_stub(node, config):
    """In place of loading a network."""
    reconstructor = InterruptibleReconstructor(ConstantReconstructor())
    return Mapper(config, reconstructor), reconstructor


class TimedNode(MappingNode):
    """Says what was measured when it is told to stop; later the process may leave at once."""

    def __init__(self) -> None:
        self._times = CallbackTimes()
        ImageInput._on_image = self._times.wrap(ImageInput._on_image)  # type: ignore[method-assign]
        super().__init__(make_stub)

    def stop(self) -> None:
        print(json.dumps(self._times.report()), flush=True)
        super().stop()


def main() -> int:
    return run(TimedNode, sys.argv, make_executor)


if __name__ == "__main__":
    sys.exit(main())
