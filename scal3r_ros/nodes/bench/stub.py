"""`mapping_node` with a network that takes constant time, and a stopwatch on its image callback.

Run by `bench`; prints one line of JSON when it is stopped. Options before `--ros-args`:
`--seconds` of a chunk, `--rows` of its depth maps.
"""

from __future__ import annotations

import argparse
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
from scal3r_ros.pipeline.localisation import LocalisingMapper
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

    def __init__(self, seconds: float = CHUNK_SECONDS, rows: int = ROWS) -> None:
        self.seconds, self.rows = seconds, rows

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        time.sleep(self.seconds)
        count, rows = len(chunk.frames), self.rows
        depth = np.random.default_rng(0).uniform(2.0, 8.0, (rows, rows)).astype(np.float32)
        poses = np.tile(np.eye(4), (count, 1, 1))
        poses[:, 0, 3] = 0.05 * (np.arange(count) - middle_position(count))
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


def maker(seconds: float, rows: int) -> Callable:
    """What makes a mapper in place of loading a network."""

    def make_stub(node, config):
        reconstructor = InterruptibleReconstructor(ConstantReconstructor(seconds, rows))
        return LocalisingMapper(config, reconstructor), reconstructor

    return make_stub


class TimedNode(MappingNode):
    """Says what was measured when it is told to stop; later the process may leave at once."""

    def __init__(self, make_stub: Callable) -> None:
        self._times = CallbackTimes()
        ImageInput._on_image = self._times.wrap(ImageInput._on_image)  # type: ignore[method-assign]
        super().__init__(make_stub)

    def stop(self) -> None:
        print(json.dumps(self._times.report()), flush=True)
        super().stop()


def main() -> int:
    words, ros_words = sys.argv[1:], []
    if "--ros-args" in words:
        cut = words.index("--ros-args")
        words, ros_words = words[:cut], words[cut:]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=CHUNK_SECONDS)
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args(words)
    make_stub = maker(options.seconds, options.rows)
    return run(
        lambda: TimedNode(make_stub),
        [sys.argv[0], *ros_words],
        make_executor,
        lambda node: node.config.autostart,
    )


if __name__ == "__main__":
    sys.exit(main())
