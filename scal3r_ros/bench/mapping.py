"""Long runs by simulation: drift with and without loops, time and memory of everything but the
network.

A city of 3.7 km is driven in 4541 frames (the length of KITTI's longest sequence) and cut into
chunks by an oracle that drifts,
errs and has a scale of its own in every chunk. Every case runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from scal3r_ros.bench.city import City, drive
from scal3r_ros.bench.oracle import REALISTIC, OracleReconstructor
from scal3r_ros.config import Config, LoopConfig
from scal3r_ros.mapping.similarity_fit import weighted_similarity
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.records import Frame, TrajectoryPose

FRAMES, METRES = 4541, 3724.0
"""The length of KITTI odometry sequence 00."""


@dataclass(frozen=True)
class Case:
    """One run."""

    frames: int = FRAMES
    loops: bool = True
    seed: int = 0
    width: int = 96
    height: int = 30


@dataclass(frozen=True)
class Result:
    """What it took and what came of it."""

    case: Case
    kilometres: float
    chunks: int
    loops_closed: int
    ate: float
    """RMS position error after similarity alignment, metres."""
    seconds: float
    """CPU seconds of the mapper, without the oracle."""
    seconds_late: float
    """CPU seconds per chunk in the last quarter, relative to the first quarter."""
    peak_megabytes: float
    map_megabytes: float
    points: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/bench/mapping.json"))
    parser.add_argument("--seeds", type=int, default=1, help="simulated drives per case")
    parser.add_argument("--quick", action="store_true", help="a tenth of the length, for tests")
    parser.add_argument("--case", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> list[Result]:
    """Run all cases, print the table and write it as JSON."""
    if args.case:
        print(json.dumps(asdict(run_case(Case(**json.loads(args.case))))))
        return []
    results = []
    for case in cases(args.seeds, args.quick):
        results.append(in_own_process(case))
        print(table(results[-1:], heading=len(results) == 1), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps([asdict(result) for result in results], indent=1))
    return results


def cases(seeds: int, quick: bool) -> Iterator[Case]:
    """Full length with and without loops for every seed, and shorter drives to see the growth."""
    whole = FRAMES // 10 if quick else FRAMES
    for seed in range(seeds):
        yield Case(whole, loops=False, seed=seed)
        yield Case(whole, loops=True, seed=seed)
    yield Case(whole // 2)
    yield Case(whole // 4)


def in_own_process(case: Case) -> Result:
    """Peak memory belongs to one case alone."""
    command = [sys.executable, "-m", __spec__.name, "--case", json.dumps(asdict(case))]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values = json.loads(answer.splitlines()[-1])
    return Result(**{**values, "case": Case(**values["case"])})


def run_case(case: Case) -> Result:
    """Drive, map and measure."""
    city = drive(FRAMES, METRES, case.width, case.height)
    reconstructor = OracleReconstructor(city, replace(REALISTIC, seed=case.seed))
    mapper = Mapper(Config(loop=LoopConfig(enabled=case.loops)), reconstructor)
    spent, closed, clock = [], 0, _Clock(reconstructor)
    for index in range(case.frames):
        updates = mapper.add(Frame(index, city.stamp_ns(index), np.zeros((2, 2, 3), np.uint8)))
        if updates:
            closed += sum(len(update.loops) for update in updates)
            spent.append(clock.lap())
    closed += sum(len(update.loops) for update in mapper.flush())
    spent.append(clock.lap())
    quarter = max(1, len(spent) // 4)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return Result(
        case=case,
        kilometres=_length(city, case.frames) / 1000.0,
        chunks=mapper.counters["chunks"],
        loops_closed=closed,
        ate=trajectory_error(mapper.trajectory(), city),
        seconds=float(np.sum(spent)),
        seconds_late=float(np.mean(spent[-quarter:]) / np.mean(spent[:quarter])),
        peak_megabytes=peak,
        map_megabytes=mapper.nbytes / 1e6,
        points=mapper.points_count,
    )


def trajectory_error(poses: tuple[TrajectoryPose, ...], city: City) -> float:
    """RMS distance of the camera centres after the best similarity, metres."""
    found = np.array([pose.T_map_camera[:3, 3] for pose in poses])
    true = city.T_world_camera[[pose.frame_id for pose in poses], :3, 3]
    S_world_map = weighted_similarity(found, true, np.ones(len(found)))
    return float(np.sqrt(np.mean(np.sum((S_world_map.apply(found) - true) ** 2, axis=1))))


def table(results: list[Result], heading: bool = True) -> str:
    """Aligned rows for people."""
    names = "frames km chunks loops ATE_m ATE_% mapper_s s/chunk late/early peak_MB map_MB points"
    rows = [names.split()] if heading else []
    for r in results:
        loops = str(r.loops_closed) if r.case.loops else "off"
        share = 100.0 * r.ate / (1000.0 * r.kilometres)
        numbers = f"{r.case.frames} {r.kilometres:.2f} {r.chunks} {loops} {r.ate:.2f} {share:.3f} "
        numbers += f"{r.seconds:.1f} {r.seconds / r.chunks:.2f} {r.seconds_late:.2f} "
        rows.append((numbers + f"{r.peak_megabytes:.0f} {r.map_megabytes:.0f} {r.points}").split())
    return "\n".join("".join(f"{cell:>11}" for cell in row) for row in rows)


class _Clock:
    """CPU time that passes outside the oracle."""

    def __init__(self, oracle: OracleReconstructor) -> None:
        self._oracle_seconds = 0.0
        self._last = time.process_time()
        reconstruct = oracle.reconstruct

        def timed(*args, **kwargs):
            started = time.process_time()
            try:
                return reconstruct(*args, **kwargs)
            finally:
                self._oracle_seconds += time.process_time() - started

        oracle.reconstruct = timed

    def lap(self) -> float:
        now = time.process_time()
        spent = now - self._last - self._oracle_seconds
        self._last, self._oracle_seconds = now, 0.0
        return spent


def _length(city: City, frames: int) -> float:
    steps = np.diff(city.T_world_camera[:frames, :3, 3], axis=0)
    return float(np.linalg.norm(steps, axis=1).sum())


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
