"""What the network's benchmark runs, what it reports, and what is required of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

REQUIRED_GIB, REQUIRED_SPEEDUP, REQUIRED_SHARE = 8.0, 10.0, 0.5
_COLUMNS = (
    "case", "s/chunk", "cpu s", "frame/s", "TFLOP", "of matmul", "device", "host", "growth",
)  # fmt: skip


@dataclass(frozen=True)
class ModelCase:
    """One row of the table."""

    preset: str
    schedule: str
    """`stream` or `naive`."""
    precision: str
    frames: int
    height: int
    width: int
    chunks: int
    """Timed chunks; half of a chunk's frames are shared with the one before."""
    device: str

    @property
    def name(self) -> str:
        size = f"{self.frames}x{self.width}x{self.height}"
        return f"{self.preset} {self.schedule} {self.precision} {size}, {self.chunks}"


@dataclass(frozen=True)
class ModelResult:
    """What a case measured; memory in MiB."""

    case: ModelCase
    seconds_per_chunk: float
    cpu_seconds_per_chunk: float
    """Processor time of all threads; unlike the wall clock it does not depend on neighbours."""
    frames_per_second: float
    tflop_per_chunk: float
    tflop_by_part: dict[str, float]
    """Where they go; memory, camera and dense run in float32 whatever the case's format."""
    matmul_tflops: float
    """Measured rate of large matrix products on this device in the case's format."""
    attention_tflops: float
    """Measured rate of attention over all tokens of the chunk, the largest part at full size."""
    share_of_matmul: float
    weights: float
    peak_device: float
    """Beyond the weights; 0 without a GPU."""
    peak_host: float
    """Largest resident size of the process."""
    host_growth: float
    """Growth of that from the second timed chunk to the last."""


def cases(device: str, quick: bool) -> Iterator[ModelCase]:
    """Tiny network on the CPU everywhere; full size too where there is a GPU."""
    tiny = ModelCase("scal3r-tiny", "stream", "float32", 12, 168, 224, 3, "cpu")
    if quick:
        tiny = replace(tiny, frames=2, height=56, width=56, chunks=2)
    yield tiny
    yield replace(tiny, schedule="naive")
    small = replace(tiny, frames=4, height=84, width=112)
    if quick:
        small = tiny
    for chunks in (3, 4) if quick else (3, 30):
        yield replace(small, chunks=chunks)
    if device == "cpu":
        return
    for height in (392, 154):
        full = ModelCase("scal3r", "stream", "bfloat16", 60, height, 518, 4, device)
        yield full
        yield replace(full, precision="float32", chunks=2)
        yield replace(full, schedule="naive", precision="float32", chunks=2)


def header() -> str:
    return _row(_COLUMNS)


def row(result: ModelResult) -> str:
    """One line of the table."""
    return _row(
        (
            f"{result.case.name} on {result.case.device}",
            f"{result.seconds_per_chunk:.3f}",
            f"{result.cpu_seconds_per_chunk:.3f}",
            f"{result.frames_per_second:.1f}",
            f"{result.tflop_per_chunk:.3g}",
            f"{result.share_of_matmul:.0%}",
            f"{result.peak_device:.0f}",
            f"{result.peak_host:.0f}",
            f"{result.host_growth:.0f}",
        )
    )


def verdicts(results: Sequence[ModelResult]) -> list[str]:
    """What is required on a large GPU, found or missed; one sentence where none was measured."""
    found = {(r.case.schedule, r.case.precision): r for r in results if _is_reference(r.case)}
    fast, slow = found.get(("stream", "bfloat16")), found.get(("naive", "float32"))
    if fast is None or slow is None:
        return ["60 frames at 518x392 with the full-size network: not measured on this machine"]
    gib, speedup = fast.peak_device / 1024, fast.frames_per_second / slow.frames_per_second
    return [
        f"peak beyond weights {gib:.2f} GiB, at most {REQUIRED_GIB:g}: {_met(gib <= REQUIRED_GIB)}",
        f"frames/s {speedup:.1f} times the naive schedule, at least {REQUIRED_SPEEDUP:g}: "
        f"{_met(speedup >= REQUIRED_SPEEDUP)}",
        f"{fast.share_of_matmul:.0%} of the matmul rate ({fast.matmul_tflops:.0f} TFLOP/s; "
        f"attention alone runs at {fast.attention_tflops:.0f}), at least {REQUIRED_SHARE:.0%}: "
        f"{_met(fast.share_of_matmul >= REQUIRED_SHARE)}",
    ]


def _is_reference(case: ModelCase) -> bool:
    return (case.preset, case.frames, case.height, case.width) == ("scal3r", 60, 392, 518)


def _met(holds: bool) -> str:
    return "holds" if holds else "DOES NOT HOLD"


def _row(cells: Sequence[str]) -> str:
    return f"{cells[0]:<58}" + "".join(f"{cell:>10}" for cell in cells[1:])
