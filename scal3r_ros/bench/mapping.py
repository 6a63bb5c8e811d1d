"""Long runs by simulation: drift with and without loops, time and memory of everything but the
network.

A city of 3.7 km is driven in 4541 frames (as KITTI odometry 00) and cut into chunks by an oracle
that errs and has a scale of its own in every chunk. Its drift is `steady` (systematic and random)
or `random`; both make what is published without loops. Every case runs in a process of its own.
Where ROS is installed, the node's planner of output takes its snapshots after every chunk too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from scal3r_ros.bench.city import ROUTE, City, drive
from scal3r_ros.bench.loop_limit import loop_limit, position_error
from scal3r_ros.bench.oracle import RANDOM, REALISTIC, OracleReconstructor
from scal3r_ros.config import Config, LongContextConfig, LoopConfig
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.records import Frame, MapUpdate, TrajectoryPose

NEVER_AGAIN = "EENEENEEEN" * 4
"""As many blocks, none of them twice."""
FRAMES, METRES = 4541, 3724.0
"""The length of KITTI odometry sequence 00."""
DRIFTS = {"steady": REALISTIC, "random": RANDOM}


@dataclass(frozen=True)
class DriveCase:
    """One run."""

    frames: int = FRAMES
    laps: int = 1
    """How often the whole route is driven: more frames at an equal density of loops."""
    loops: bool = True
    drift: str = "steady"
    seed: int = 0
    width: int = 96
    height: int = 30
    context: int = 0
    """`long_context.every`: chunks from one window over many chunks to the next; 0 for none."""
    returns: bool = True
    """Whether the route comes back to where it was."""


@dataclass(frozen=True)
class DriveResult:
    """What it took and what came of it."""

    case: DriveCase
    kilometres: float
    chunks: int
    loops_closed: int
    ate: float
    """RMS position error after similarity alignment, metres."""
    ate_chained: float
    """The same of the sequence constraints alone."""
    ate_best: float
    """The same with every true revisit given without error: what loops can give at all."""
    seconds: float
    """CPU seconds of the mapper, without the oracle."""
    chunk_seconds: float
    """Of these, for one chunk of the stream at the start of the run."""
    loop_seconds: float
    """For one loop chunk."""
    growth: float
    """By how much a chunk of the stream takes longer at the end, as a share of `chunk_seconds`."""
    planned_seconds: float | None
    """CPU seconds of the node's planner of output for one chunk at the start; None without ROS."""
    planned_growth: float | None
    """By how much that is longer at the end, as a share of `planned_seconds`."""
    peak_megabytes: float
    map_megabytes: float
    points: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/bench/mapping.json"))
    parser.add_argument("--seeds", type=int, default=1, help="simulated drives per case")
    parser.add_argument("--quick", action="store_true", help="a tenth of the length, for tests")
    parser.add_argument("--case", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> list[DriveResult]:
    """Run all cases, print the table and write it as JSON."""
    if args.case:
        print(json.dumps(asdict(run_case(DriveCase(**json.loads(args.case))))))
        return []
    results = []
    for case in cases(args.seeds, args.quick):
        results.append(in_own_process(case))
        print(table(results[-1:], heading=len(results) == 1), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps([asdict(result) for result in results], indent=1))
    return results


def cases(seeds: int, quick: bool) -> Iterator[DriveCase]:
    """Windows over many chunks, without and with loops; both kinds of drift for every seed; then
    lengths from a quarter to twice the route."""
    whole = FRAMES // 10 if quick else FRAMES
    yield DriveCase(whole, loops=False)
    for seed in range(seeds):
        yield DriveCase(whole, loops=False, seed=seed, context=4)
        yield DriveCase(whole, loops=False, seed=seed, context=4, returns=False)
        for drift in DRIFTS:
            yield DriveCase(whole, drift=drift, seed=seed, context=4)
    for drift in DRIFTS:
        for seed in range(seeds):
            yield DriveCase(whole, drift=drift, seed=seed)
    yield DriveCase(whole // 4)
    yield DriveCase(whole // 2)
    yield DriveCase(2 * whole, laps=2)


def in_own_process(case: DriveCase) -> DriveResult:
    """Peak memory belongs to one case alone."""
    command = [sys.executable, "-m", __spec__.name, "--case", json.dumps(asdict(case))]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values = json.loads(answer.splitlines()[-1])
    return DriveResult(**{**values, "case": DriveCase(**values["case"])})


def run_case(case: DriveCase) -> DriveResult:
    """Drive, map and measure."""
    city = drive(case.laps * FRAMES, case.laps * METRES, case.width, case.height,
                 case.laps * (ROUTE if case.returns else NEVER_AGAIN))  # fmt: skip
    reconstructor = OracleReconstructor(city, replace(DRIFTS[case.drift], seed=case.seed))
    windows = LongContextConfig(every=case.context)
    config = Config(loop=LoopConfig(enabled=case.loops), long_context=windows)
    mapper = Mapper(config, reconstructor)
    spent, planned, loops, clock = [], [], [], _Clock(reconstructor)
    plan = node_planner(mapper) if importlib.util.find_spec("rclpy") else None
    for index in range(case.frames):
        updates = mapper.add(Frame(index, city.stamp_ns(index), np.zeros((2, 2, 3), np.uint8)))
        if updates:
            loops.append(sum(len(update.loops) for update in updates))
            spent.append(clock.lap())
            if plan is not None:
                plan(tuple(updates))
                planned.append(clock.lap())
    closed = sum(loops) + sum(len(update.loops) for update in mapper.flush())
    last = clock.lap()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    chunk_seconds, loop_seconds, growth = cost_model(np.array(spent), np.array(loops))
    plan_seconds, _, plan_growth = cost_model(np.array(planned), np.array(loops)) if planned else (
        None, None, None)  # fmt: skip
    graph, trajectory = mapper.live_map.graph, mapper.live_map.trajectory
    limit = loop_limit(graph, trajectory, city, reconstructor.units)
    return DriveResult(
        case=case,
        kilometres=_length(city, case.frames) / 1000.0,
        chunks=mapper.counters["chunks"],
        loops_closed=closed,
        ate=trajectory_error(mapper.trajectory(), city),
        ate_chained=limit.without_loops,
        ate_best=limit.best,
        seconds=float(np.sum(spent) + last),
        chunk_seconds=chunk_seconds,
        loop_seconds=loop_seconds,
        growth=growth,
        planned_seconds=plan_seconds,
        planned_growth=plan_growth,
        peak_megabytes=peak,
        map_megabytes=mapper.nbytes / 1e6,
        points=mapper.points_count,
    )


def node_planner(mapper: Mapper) -> Callable[[tuple[MapUpdate, ...]], None]:
    """What the node decides and copies after each chunk, with its defaults and somebody who listens
    to the map; nothing is sent."""
    from scal3r_ros.nodes.base.node_config import NodeConfig
    from scal3r_ros.nodes.mapping.worker import Output
    from scal3r_ros.nodes.output.output_planner import OutputPlanner

    nowhere = SimpleNamespace(put=lambda publication: None)
    planner = OutputPlanner(
        NodeConfig(), nowhere, lambda: "camera", mapper.latest, lambda: 1, lambda mapper: None
    )
    return lambda updates: planner(Output(mapper, updates))


def cost_model(spent: np.ndarray, loops: np.ndarray) -> tuple[float, float, float]:
    """Least squares of the seconds of each chunk by: constant, loop chunks, position in the run.

    Returns seconds per chunk, per loop chunk, and the growth over the run. Loops lie where the
    route revisits, late in the run, so that without the second term they would look like growth.
    """
    position = np.arange(len(spent)) / max(len(spent) - 1, 1)
    terms = [np.ones(len(spent)), position, loops.astype(float)][: 3 if loops.any() else 2]
    found = np.linalg.lstsq(np.stack(terms, axis=1), spent, rcond=None)[0]
    per_loop = float(found[2]) if loops.any() else 0.0
    return float(found[0]), per_loop, float(found[1] / found[0])


def trajectory_error(poses: tuple[TrajectoryPose, ...], city: City) -> float:
    """RMS distance of the camera centres after the best similarity, metres."""
    found = np.array([pose.T_map_camera[:3, 3] for pose in poses])
    return position_error(found, [pose.frame_id for pose in poses], city)


def table(results: list[DriveResult], heading: bool = True) -> str:
    """Aligned rows for people. `chain`, `best`: ATE without loops and with perfect ones; `context`:
    chunks from window to window, `-once` on a route that never returns."""
    names = "frames km drift seed chunks loops chain_m ATE_m best_m ATE/chain mapper_s ms/chunk "
    names += "ms/loop growth_% ms/plan plan_% peak_MB map_MB points context"
    rows = [names.split()] if heading else []
    for r in results:
        loops = str(r.loops_closed) if r.case.loops else "off"
        numbers = f"{r.case.frames} {r.kilometres:.2f} {r.case.drift} {r.case.seed} {r.chunks} "
        numbers += f"{loops} {r.ate_chained:.2f} {r.ate:.2f} {r.ate_best:.2f} "
        numbers += f"{r.ate / r.ate_chained:.3f} {r.seconds:.1f} {1e3 * r.chunk_seconds:.0f} "
        numbers += f"{1e3 * r.loop_seconds:.0f} {100 * r.growth:.0f} "
        if r.planned_seconds is None:
            numbers += "- - "
        else:
            numbers += f"{1e3 * r.planned_seconds:.1f} {100 * r.planned_growth:.0f} "
        numbers += f"{r.peak_megabytes:.0f} {r.map_megabytes:.0f} {r.points} "
        numbers += f"{r.case.context}{'' if r.case.returns else '-once'}"
        rows.append(numbers.split())
    return "\n".join("".join(f"{cell:>10}" for cell in row) for row in rows)


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
