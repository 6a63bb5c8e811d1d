"""What it costs to fuse the points of a chunk into the map, beside sorting on the same machine."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from scal3r_ros.config import MapConfig
from scal3r_ros.mapping.point_map import PointMap
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.records import ChunkPrediction

FRAMES, SHAPE, FOCAL = 30, (154, 518), 300.0
SORTED = 2_000_000
"""Numbers whose sorting is the yardstick; a chunk has 2.4 million points."""


def street_chunk() -> ChunkPrediction:
    """Frames of a camera that drives along facades over flat ground."""
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    facade = 8 + 30 * np.abs(np.sin(columns / 60.0))
    ground = 500.0 / np.maximum(rows - 77, 1)
    scene = np.where(rows > 80, np.minimum(ground, facade), facade)
    K = np.array([[FOCAL, 0.0, SHAPE[1] / 2], [0.0, FOCAL, SHAPE[0] / 2], [0.0, 0.0, 1.0]])
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 2, 3] = 0.8 * np.arange(FRAMES)
    return ChunkPrediction(
        chunk_index=0,
        frame_ids=tuple(range(FRAMES)),
        T_chunk_camera=poses,
        intrinsics=np.tile(K, (FRAMES, 1, 1)),
        depth=np.tile(scene, (FRAMES, 1, 1)).astype(np.float32),
        confidence=random.uniform(1, 5, (FRAMES, *SHAPE)).astype(np.float32),
        rgb=random.integers(0, 255, (FRAMES, *SHAPE, 3)).astype(np.uint8),
    )


def measure(chunks: int) -> dict[str, float]:
    """Medians of processor seconds, fusion and sorting in turns so that both feel the same load."""
    side, cloud_map = street_chunk(), PointMap(MapConfig())
    numbers = np.random.default_rng(0).random(SORTED)
    fusing, sorting = [], []
    for k in range(chunks):
        S = Sim3.exp(np.r_[0, 0, 24.0 * k, 0, 0, 0, 0])
        started = time.thread_time()
        np.argsort(numbers)
        sorting.append(time.thread_time() - started)
        started = time.thread_time()
        cloud_map.integrate(replace(side, chunk_index=k), side.frame_ids, S)
        fusing.append(time.thread_time() - started)
    fused, sorted_ = float(np.median(fusing)), float(np.median(sorting))
    return {"seconds": fused, "sorting_seconds": sorted_, "ratio": fused / sorted_}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this part of the benchmark."""
    parser.add_argument("--out", type=Path, default=None, help="write the numbers here (JSON)")
    parser.add_argument("--quick", action="store_true", help="three chunks")


def run(args: argparse.Namespace) -> None:
    """Print the medians."""
    found = measure(3 if args.quick else 12)
    print(f"fusing {FRAMES} frames of {SHAPE[1]}x{SHAPE[0]}: {found['seconds']:.2f} s of one core,")
    print(
        f"{found['ratio']:.1f} times sorting two million numbers ({found['sorting_seconds']:.3f} s)"
    )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
