"""Several processes on this machine: speed by world size, cost of the exchange, and a projection.

Processes talk over gloo on localhost. With more processes than cores the speed-up says little; the
overhead of a group of one and the traffic are what can be measured anywhere.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scal3r_ros.bench.model import ModelCase, random_chunks, random_network
from scal3r_ros.bench.network_cost import chunk_cost
from scal3r_ros.bench.projection import (
    LAYOUTS,
    PYTHON_RATE,
    Projection,
    gradient_bytes,
    project,
    ring_share,
)
from scal3r_ros.config import DistributedConfig, MemoryConfig
from scal3r_ros.networks.fast_weights import FastWeights
from scal3r_ros.networks.scal3r.architecture import preset
from scal3r_ros.networks.scal3r.checkpoint import LoadedNetwork
from scal3r_ros.reconstruct.scal3r.reconstructor import Scal3RReconstructor
from scal3r_ros.workers.exchange import AllReduceSync
from scal3r_ros.workers.group import Place, connect, host_store, join_store
from scal3r_ros.workers.lockstep_worker import LockstepWorker
from scal3r_ros.workers.membership import Origin
from scal3r_ros.workers.shares import shares

_CPU = torch.device("cpu")
_OFFICIAL_GRID = (28, 37)  # 518 x 392


@dataclass(frozen=True)
class Scaling:
    """Rounds of one chunk per process."""

    world_size: int
    seconds_per_round: float
    chunks_per_second: float
    cpu_seconds_per_chunk: float
    sync_seconds: float
    """Inside collectives, waiting for the slower process included."""
    bytes_per_round: int
    """That each process sent."""
    bytes_expected: int
    """2 (R - 1) / R times the gradients."""


@dataclass(frozen=True)
class MeasuredTraffic:
    """The exchange of one full-size round without any computing."""

    world_size: int
    wire: str
    bytes_per_round: int
    bytes_expected: int
    seconds_per_round: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark of several processes."""
    parser.add_argument("--out", type=Path, default=Path("out/bench/distributed.json"))
    parser.add_argument("--quick", action="store_true", help="smallest sizes, for tests")
    parser.add_argument(
        "--chunk-seconds",
        type=float,
        default=0.0,
        help="for the projection: measured time of a 60-frame chunk at 518 x 392 on one GPU",
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=200.0,
        help="for the projection, without --chunk-seconds: sustained rate of one GPU",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the tables and write the results as JSON."""
    rounds, repeats = (2, 2) if args.quick else (8, 30)
    case = ModelCase("scal3r-tiny", "stream", "float32", 4, 84, 112, rounds, "cpu")
    overhead = _overhead(case, repeats)
    scaling = [_together(_measure_rounds, size, case)[0] for size in (1, 2)]
    wires = ("float32",) if args.quick else ("float32", "bfloat16")
    traffic = [_together(_measure_traffic, 2, (wire, args.quick))[0] for wire in wires]
    seconds = args.chunk_seconds or _estimated_chunk_seconds(args.tflops)
    projections = [project(layout, seconds, preset("scal3r")) for layout in LAYOUTS]
    basis = "given" if args.chunk_seconds else f"ASSUMED from {args.tflops:g} TFLOP/s"
    _print(overhead, scaling, traffic)
    _print_projection(seconds, basis, projections)
    results = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}",
        "overhead_of_a_group_of_one": overhead,
        "scaling": [asdict(row) for row in scaling],
        "traffic": [asdict(row) for row in traffic],
        "chunk_seconds_of_projection": seconds,
        "basis_of_chunk_seconds": basis,
        "projections": [asdict(row) for row in projections],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {args.out}")
    return results


def main() -> None:
    """`python -m scal3r_ros.bench.distributed --chunk-seconds 1.9` projects from your own GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    run(parser.parse_args())


def _overhead(case: ModelCase, repeats: int) -> float:
    """Relative extra processor time of a group of one against the reconstructor alone.

    Both do the same chunks in turns, so that what neighbours do to the machine hits both.
    """
    torch.set_num_threads(1)
    config = DistributedConfig()
    worker, alone = LockstepWorker(_engine(case), config, _CPU), _engine(case)
    worker.join(host_store(config), Place(1, 0, 1), Origin())
    share = shares(1, 1)[0]
    ratios = []
    for number, chunk in enumerate(random_chunks(case, repeats + 1), start=1):
        pair = [
            ("group", lambda c=chunk, n=number: (worker.run(n, [c], share), worker.summary())),
            ("alone", lambda c=chunk: alone.reconstruct_round([c])),
        ]
        times = {}
        for name, work in pair if number % 2 else reversed(pair):
            started = time.process_time()
            work()
            times[name] = time.process_time() - started
        ratios.append(times["group"] / times["alone"])
    worker.leave()
    return float(np.median(ratios[1:]) - 1)


def _measure_rounds(rank: int, size: int, port: int, case: ModelCase) -> Scaling:
    config = DistributedConfig()
    worker = LockstepWorker(_engine(case), config, _CPU)
    store = join_store("127.0.0.1", port, config)
    worker.join(store, Place(1, rank, size), Origin())
    share = shares(size, size)[rank]
    seconds, busy, waited, sent = [], [], [], 0
    for number, chunk in enumerate(random_chunks(case, case.chunks + 1), start=1):
        started, busy_before = time.monotonic(), time.process_time()
        worker.run(number, [chunk], share)
        seconds.append(time.monotonic() - started)
        busy.append(time.process_time() - busy_before)
        waited.append(worker.traffic.seconds)
        sent = worker.traffic.bytes_sent
    worker.leave()
    round_seconds = float(np.median(seconds[1:]))
    return Scaling(
        world_size=size,
        seconds_per_round=round_seconds,
        chunks_per_second=size / round_seconds,
        cpu_seconds_per_chunk=float(np.median(busy[1:])),
        sync_seconds=float(np.median(waited[1:])),
        bytes_per_round=sent,
        bytes_expected=int(ring_share(size) * gradient_bytes(preset(case.preset))),
    )


def _measure_traffic(rank: int, size: int, port: int, options: tuple[str, bool]) -> MeasuredTraffic:
    wire, quick = options
    config = DistributedConfig(wire=wire)
    store = join_store("127.0.0.1", port, config)
    group = connect(store, Place(1, rank, size), config, _CPU)
    a = preset("scal3r-tiny" if quick else "scal3r")
    width, hidden = a.embed_dim, a.embed_dim * a.ttt_inter_multi
    gradients = FastWeights(
        torch.ones(1, width, hidden), torch.ones(1, hidden, width), torch.ones(1, width, hidden)
    )
    seconds = []
    for _ in range(3):
        sync = AllReduceSync(group, getattr(torch, wire))
        for layer in a.ttt_layers:
            sync(layer, gradients)
        seconds.append(sync.traffic.seconds)
    group.close()
    factor = 0.5 if wire == "bfloat16" else 1.0
    expected = int(factor * ring_share(size) * gradient_bytes(a))
    return MeasuredTraffic(size, wire, sync.traffic.bytes_sent, expected, min(seconds))


def _together(measure: Callable, size: int, argument: Any) -> list[Any]:
    """Results of `measure` in `size` processes that have met."""
    context = multiprocessing.get_context("spawn")
    store = host_store(DistributedConfig())
    results = context.Queue()
    processes = [
        context.Process(target=_measure, args=(results, measure, rank, size, store.port, argument))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=600.0) for _ in processes)
    for process in processes:
        process.join(30.0)
    return [found[rank] for rank in range(size)]


def _measure(
    results: Any, measure: Callable, rank: int, size: int, port: int, argument: Any
) -> None:
    torch.set_num_threads(1)
    results.put((rank, measure(rank, size, port, argument)))


def _engine(case: ModelCase) -> Scal3RReconstructor:
    network = random_network(preset(case.preset), case.precision, _CPU)
    return Scal3RReconstructor(LoadedNetwork(network, "random"), MemoryConfig(), case.width)


def _estimated_chunk_seconds(tflops: float) -> float:
    """Of 60 frames at 518 x 392, half of them new to the encoder."""
    return chunk_cost(preset("scal3r"), 60, 30, _OFFICIAL_GRID).total / (tflops * 1e12)


def _print(overhead: float, scaling: Sequence[Scaling], traffic: Sequence[MeasuredTraffic]) -> None:
    print("measured on this machine:")
    print(f"group of one against no group: {100 * overhead:+.2f} % processor time")
    print("world  round s  chunk/s  cpu s/chunk   sync s  sent MB  analytic MB")
    for row in scaling:
        print(
            f"{row.world_size:5d}  {row.seconds_per_round:7.3f}  {row.chunks_per_second:7.2f}  "
            f"{row.cpu_seconds_per_chunk:11.3f}  {row.sync_seconds:7.3f}  "
            f"{row.bytes_per_round / 1e6:7.2f}  {row.bytes_expected / 1e6:11.2f}"
        )
    print("exchange of a round at full size, no computing")
    for row in traffic:
        print(
            f"world {row.world_size}, {row.wire}: {row.bytes_per_round / 1e6:.1f} MB sent by each "
            f"(analytic {row.bytes_expected / 1e6:.1f}), {row.seconds_per_round:.3f} s"
        )


def _print_projection(seconds: float, basis: str, projections: Sequence[Projection]) -> None:
    print("computed, not measured:")
    print(
        f"a chunk takes {seconds:.2f} s on one GPU ({basis}); link rates are ASSUMED; messages at"
    )
    print(f"{PYTHON_RATE / 1e9:.2f} GB/s, measured once on another machine")
    print("layout                          sync s  messages s  round s  speed-up  without messages")
    for row in projections:
        print(
            f"{row.layout.name:30s}  {row.sync:6.3f}  {row.messages:10.3f}  {row.round:7.3f}  "
            f"{row.speedup:8.1f}  {row.speedup_without_messages:16.1f}"
        )


if __name__ == "__main__":
    main()
