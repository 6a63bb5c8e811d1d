"""Speed and memory of the network: our schedule against a naive one, in one run.

Every case runs in a process of its own, so that peak memory belongs to that case alone. Weights are
random; time and memory do not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from scal3r_ros.bench.model_cases import ModelCase, ModelResult, cases, header, row, verdicts
from scal3r_ros.bench.naive_schedule import run_naively
from scal3r_ros.bench.network_cost import ChunkCost, chunk_cost
from scal3r_ros.config import MemoryConfig
from scal3r_ros.networks.scal3r.architecture import Architecture, Numerics, preset
from scal3r_ros.networks.scal3r.checkpoint import LoadedNetwork
from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.reconstruct.interface import OutOfDeviceMemory
from scal3r_ros.reconstruct.scal3r.chunk_job import network_order
from scal3r_ros.reconstruct.scal3r.reconstructor import Scal3RReconstructor
from scal3r_ros.records import Chunk, Frame

MIB = 1 << 20
_OUT_OF_MEMORY = 3
"""Exit status of a case that does not fit into the device."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the network benchmark."""
    parser.add_argument("--out", type=Path, default=Path("out/bench/model.json"))
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, for tests")
    parser.add_argument("--case", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> list[ModelResult]:
    """Run all cases, print the table and write the results as JSON."""
    if args.case:
        _answer(ModelCase(**json.loads(args.case)))
        return []
    device = args.device
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    results = []
    print(header())
    for case in cases(device, args.quick):
        result = in_own_process(case)
        print(row(result), flush=True)
        results.append(result)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": _machine(device),
        "verdicts": verdicts(results),
        "results": [asdict(result) for result in results],
    }
    args.out.write_text(json.dumps(content, indent=1) + "\n")
    print("memory in MiB: device beyond the weights, host resident;", content["machine"])
    print("\n".join(content["verdicts"]), f"wrote {args.out}", sep="\n")
    return results


def in_own_process(case: ModelCase) -> ModelResult:
    """Measure a case in a fresh interpreter; with half the frames if the device is too small."""
    command = [sys.executable, "-m", "scal3r_ros.bench.model", "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode == _OUT_OF_MEMORY and case.frames > 2:
        print(f"{case.name} does not fit into {case.device}; half the frames:", flush=True)
        return in_own_process(replace(case, frames=case.frames // 2))
    if done.returncode:
        raise RuntimeError(f"{case} ended with status {done.returncode}; see the lines above")
    values = json.loads(done.stdout.splitlines()[-1])
    return ModelResult(**{**values, "case": ModelCase(**values["case"])})


def _answer(case: ModelCase) -> None:
    try:
        print(json.dumps(asdict(run_case(case))))
    except (OutOfDeviceMemory, torch.cuda.OutOfMemoryError) as error:
        print(error, file=sys.stderr)
        sys.exit(_OUT_OF_MEMORY)


def run_case(case: ModelCase) -> ModelResult:
    """Warm up with one chunk, then time the others."""
    device, sizes = torch.device(case.device), preset(case.preset)
    if case.schedule == "naive":
        sizes = replace(sizes, points_head=True)
    network = random_network(sizes, case.precision, device)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timed = _time_naive if case.schedule == "naive" else _time_stream
    seconds, cpu_seconds, growth = timed(network, case)
    peak_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else weights
    cost = _cost(sizes, case)
    dtype = getattr(torch, case.precision)
    rate = matmul_rate(device, dtype)
    return ModelResult(
        case=case,
        seconds_per_chunk=seconds,
        cpu_seconds_per_chunk=cpu_seconds,
        frames_per_second=case.frames / seconds,
        tflop_per_chunk=cost.total / 1e12,
        tflop_by_part={part: value / 1e12 for part, value in vars(cost).items()},
        matmul_tflops=rate / 1e12,
        attention_tflops=attention_rate(sizes, case, device, dtype) / 1e12,
        share_of_matmul=cost.total / seconds / rate,
        weights=weights / MIB,
        peak_device=(peak_device - weights) / MIB,
        peak_host=_resident_peak(),
        host_growth=growth,
    )


def random_network(sizes: Architecture, precision: str, device: torch.device) -> Scal3R:
    """A network with fresh weights, made on its device."""
    torch.manual_seed(0)
    with device:
        network = Scal3R(sizes, Numerics(blocks=precision))
    return network.eval().requires_grad_(False)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of large square matrix products, best of five."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / _shortest(lambda: a @ a, device)


def attention_rate(
    sizes: Architecture, case: ModelCase, device: torch.device, dtype: torch.dtype
) -> float:
    """Operations per second of attention over all tokens of the case's chunk, best of five."""
    height, width = case.height // sizes.patch_size, case.width // sizes.patch_size
    tokens = case.frames * (height * width + sizes.special_tokens)
    shape = (1, sizes.num_heads, tokens, sizes.embed_dim // sizes.num_heads)
    q = torch.randn(shape, device=device).to(dtype)
    seconds = _shortest(lambda: F.scaled_dot_product_attention(q, q, q), device)
    return 4 * tokens**2 * sizes.embed_dim / seconds


def _shortest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the quickest of five runs after a first one."""
    seconds = []
    for _ in range(6):
        _synchronize(device)
        started = time.perf_counter()
        work()
        _synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _time_stream(network: Scal3R, case: ModelCase) -> tuple[float, float, float]:
    """The product's own path, memory and encoder cache included: wall and processor seconds per
    chunk, growth of the resident size."""
    engine = Scal3RReconstructor(LoadedNetwork(network, "random"), MemoryConfig(), case.width)
    seconds, busy, resident = [], [], []
    for chunk in random_chunks(case, case.chunks + 1):
        _synchronize(network.device)
        started, busy_before = time.perf_counter(), time.process_time()
        engine.reconstruct(chunk)
        _synchronize(network.device)
        seconds.append(time.perf_counter() - started)
        busy.append(time.process_time() - busy_before)
        resident.append(_resident_peak())
    growth = resident[-1] - resident[min(2, case.chunks)]
    return float(np.mean(seconds[1:])), float(np.mean(busy[1:])), growth


def _time_naive(network: Scal3R, case: ModelCase) -> tuple[float, float, float]:
    order = network_order(case.frames)
    images = [
        torch.from_numpy(np.stack([chunk.frames[i].rgb for i in order])).permute(0, 3, 1, 2)[None]
        for chunk in random_chunks(case, case.chunks)
    ]
    run_naively(network, images[:1])
    before = _resident_peak()
    _synchronize(network.device)
    started, busy_before = time.perf_counter(), time.process_time()
    for prediction in run_naively(network, images):
        prediction.depth.cpu()
    _synchronize(network.device)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy_before
    return seconds / case.chunks, busy / case.chunks, _resident_peak() - before


def random_chunks(case: ModelCase, count: int) -> Iterator[Chunk]:
    """Chunks of random images that overlap by half, made one at a time."""
    overlap = case.frames // 2
    stride = case.frames - overlap

    def frame(i: int) -> Frame:
        random = np.random.default_rng(i)
        shape = (case.height, case.width, 3)
        return Frame(i, i, random.integers(0, 256, shape, dtype=np.uint8))

    for index in range(count):
        first = index * stride
        shared = tuple(range(first, first + overlap)) if index else ()
        frames = tuple(frame(i) for i in range(first, first + case.frames))
        yield Chunk(index, 0, frames, shared)


def _cost(sizes: Architecture, case: ModelCase) -> ChunkCost:
    grid = (case.height // sizes.patch_size, case.width // sizes.patch_size)
    naive = case.schedule == "naive"
    new = case.frames if naive else case.frames - case.frames // 2
    return chunk_cost(sizes, case.frames, new, grid, points=naive)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _resident_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def _machine(device: str) -> str:
    name = platform.processor() or platform.machine()
    if device != "cpu":
        name = torch.cuda.get_device_name(device)
    return f"{name}, {os.cpu_count()} CPU cores, torch {torch.__version__}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    run(parser.parse_args())
