"""What several GPUs would bring, from the time of one chunk and the speed of the links.

A round of R workers takes the time of one chunk, plus one all-reduce of the gradients per memory
layer, plus the images and predictions that pass the machine of the mapping node. Within a machine
and between machines the all-reduce is a ring, as slow as its slowest link.
"""

from __future__ import annotations

from dataclasses import dataclass

from scal3r_ros.networks.scal3r.architecture import Architecture

LATENCY = 30e-6  # seconds per step of a ring, an assumption
PYTHON_RATE = 0.28e9
"""Bytes per second that one receiving Python process takes in: an answer of 134 MB costs it 0.47 s
of processor time (rclpy 9.1, Fast DDS, one x86-64 core)."""
CHUNK_BYTES = 60 * 392 * 518 * 3
"""Images of one chunk as sent to a worker."""
ANSWER_BYTES = 60 * 392 * 518 * (3 + 4 + 4)
"""Colour, depth and confidence of one chunk as sent back."""


@dataclass(frozen=True)
class GpuLayout:
    """Machines and their links; bytes per second that one process, or one machine, can send."""

    name: str
    workers: int
    hosts: int
    link: float
    """Slowest link of the ring."""
    network: float
    """Of the machine of the mapping node; for one machine, its memory."""


GPU_LAYOUTS = (
    GpuLayout("8 GPUs, NVLink 300 GB/s", 8, 1, 300e9, 5e9),
    GpuLayout("8 GPUs, PCIe 20 GB/s", 8, 1, 20e9, 5e9),
    GpuLayout("64 GPUs on 8 hosts, 400 Gb/s", 64, 8, 45e9, 45e9),
    GpuLayout("64 GPUs on 8 hosts, 100 Gb/s", 64, 8, 11e9, 11e9),
    GpuLayout("64 GPUs on 8 hosts, 10 Gb/s", 64, 8, 1.1e9, 1.1e9),
)


@dataclass(frozen=True)
class Projection:
    """Seconds of one round and what becomes of the speed."""

    layout: GpuLayout
    sync: float
    messages: float
    """Images out and predictions in, not overlapped with computing."""
    round: float
    speedup: float
    """Chunks per second against one GPU."""
    speedup_without_messages: float
    """If messages were sent while the GPUs compute, and cost less than that."""


def gradient_bytes(a: Architecture) -> int:
    """Of all memory layers, float32."""
    width = a.embed_dim // a.ttt_num_heads
    return len(a.ttt_layers) * 3 * a.ttt_num_heads * width * width * a.ttt_inter_multi * 4


def ring_share(workers: int) -> float:
    """Part of the payload that every process sends in an all-reduce, 2 (R - 1) / R."""
    return 2 * (workers - 1) / workers


def project(
    layout: GpuLayout, chunk_seconds: float, a: Architecture, rate: float = PYTHON_RATE
) -> Projection:
    """A round of one chunk per worker; `rate` bounds what the mapping node takes in."""
    workers = layout.workers
    steps = len(a.ttt_layers) * 2 * (workers - 1)
    sync = ring_share(workers) * gradient_bytes(a) / layout.link + steps * LATENCY
    messages = workers * (CHUNK_BYTES + ANSWER_BYTES) / min(layout.network, rate)
    computing = chunk_seconds + sync
    total = computing + messages
    ideal = workers * chunk_seconds
    return Projection(layout, sync, messages, total, ideal / total, ideal / computing)
