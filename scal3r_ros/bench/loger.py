"""LoGeR's arithmetic, state and speed: full sizes are counted without computing, the tiny one is
timed on the CPU. Scal3R stands beside it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from scal3r_ros.bench.network_cost import chunk_cost
from scal3r_ros.networks.loger.architecture import PRESETS, Architecture, Numerics
from scal3r_ros.networks.loger.network import LoGeR
from scal3r_ros.networks.loger.state import WindowState
from scal3r_ros.networks.scal3r.architecture import preset

_COLUMNS = ("network", "frames", "new", "tokens", "TFLOP", "per new", "state MB", "cpu s")


@dataclass(frozen=True)
class Case:
    """Windows of `frames` frames that share `overlap` with the one before."""

    name: str
    frames: int
    overlap: int
    grid: tuple[int, int]
    """Patches (gh, gw) of a frame."""


@dataclass(frozen=True)
class Row:
    """The cost of a window that has one before it."""

    case: Case
    tokens: int
    """Per frame."""
    tflop: float
    tflop_per_new_frame: float
    state_megabytes: float
    """What is kept from window to window, in float32."""
    cpu_seconds: float | None
    """Processor time of all threads for a window, which does not depend on neighbours; None where
    only counted."""


COUNTED = (
    Case("loger", 32, 3, (19, 66)),
    Case("loger", 32, 3, (20, 36)),
    Case("loger-star", 64, 3, (19, 66)),
)
"""KITTI's images by the released rule, and the release's fixed size 504 x 280."""
BESIDE = (Case("scal3r", 60, 30, (11, 37)), Case("scal3r", 60, 30, (28, 37)))
TIMED = (Case("loger-tiny", 8, 3, (21, 28)), Case("loger-tiny", 16, 3, (21, 28)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this benchmark."""
    parser.add_argument("--out", type=Path, default=Path("out/bench/loger.json"))
    parser.add_argument("--quick", action="store_true", help="smallest sizes, for tests")


def run(args: argparse.Namespace) -> list[Row]:
    """Print the table and write it as JSON."""
    print(_line(_COLUMNS))
    rows = []
    if args.quick:
        measures = [(timed, Case("loger-tiny", 4, 1, (6, 8)))]
    else:
        measures = [(timed, case) for case in TIMED] + [(counted, case) for case in COUNTED]
        measures += [(counted_beside, case) for case in BESIDE]
    for measure, case in measures:
        rows.append(measure(case))
        print(_line(_cells(rows[-1])), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return rows


@torch.inference_mode()
def counted(case: Case, cpu_seconds: float | None = None) -> Row:
    """Matrix products and convolutions of a window behind another, on the meta device."""
    with torch.device("meta"):
        network = LoGeR(PRESETS[case.name], Numerics(token_slice=None))
        before = _window(network, case, WindowState(), case.frames)
        with FlopCounterMode(display=False) as counter:
            after = _window(network, case, before, case.frames - case.overlap)
    tflop = counter.get_total_flops() / 1e12
    a = network.architecture
    return Row(
        case,
        case.grid[0] * case.grid[1] + a.special_tokens,
        tflop,
        tflop / (case.frames - case.overlap),
        after.nbytes / 1e6,
        cpu_seconds,
    )


@torch.inference_mode()
def timed(case: Case, windows: int = 3) -> Row:
    """The same, computed on the CPU; the cheapest of some windows behind the first."""
    network = random_network(PRESETS[case.name])
    state = _window(network, case, WindowState(), case.frames)
    seconds = []
    for _ in range(windows):
        started = time.process_time()
        state = _window(network, case, state, case.frames - case.overlap)
        seconds.append(time.process_time() - started)
    return counted(case, min(seconds))


def counted_beside(case: Case) -> Row:
    """Scal3R with the same kind of numbers: its state are three gradient sums a memory layer."""
    a = preset(case.name)
    new = case.frames - case.overlap
    tflop = chunk_cost(a, case.frames, new, case.grid).total / 1e12
    width = a.embed_dim // a.ttt_num_heads
    sums = len(a.ttt_layers) * 3 * a.ttt_num_heads * width * width * a.ttt_inter_multi
    tokens = case.grid[0] * case.grid[1] + a.special_tokens
    return Row(case, tokens, tflop, tflop / new, 4 * sums / 1e6, None)


def random_network(a: Architecture) -> LoGeR:
    torch.manual_seed(0)
    return LoGeR(a).eval().requires_grad_(False)


def _window(network: LoGeR, case: Case, before: WindowState, new: int) -> WindowState:
    """One window of which the encoder sees `new` frames; the others' tokens are remembered."""
    a = network.architecture
    size = [patches * a.patch_size for patches in case.grid]
    tokens = network.encode(torch.zeros(new, 3, *size, dtype=torch.uint8))
    known = torch.zeros(case.frames - new, *tokens.shape[1:])
    window = network.begin(
        torch.cat((known, tokens))[None], case.grid, case.frames, case.overlap, before
    )
    network.advance(window, a.decoder_depth - 1)
    network.decode(window)
    return window.after


def _cells(row: Row) -> Sequence[str]:
    case = row.case
    return (
        f"{case.name} {case.grid[1]}x{case.grid[0]} patches",
        str(case.frames),
        str(case.frames - case.overlap),
        str(row.tokens),
        f"{row.tflop:.3g}",
        f"{row.tflop_per_new_frame:.3g}",
        f"{row.state_megabytes:.0f}",
        "-" if row.cpu_seconds is None else f"{row.cpu_seconds:.2f}",
    )


def _line(cells: Sequence[str]) -> str:
    return f"{cells[0]:<30}" + "".join(f"{cell:>10}" for cell in cells[1:])
