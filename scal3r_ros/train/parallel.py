"""Several training processes under `torchrun`: averaged parameter gradients, shared memories.

Without memory, every process trains on worlds of its own. With memory, all processes see the same
worlds and take turns with the chunks; the gradients of the memory units are summed between
`gradient` and `update` exactly as at inference, and the sum passes derivatives back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from scal3r_ros.networks.fast_weights import FastWeights

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Crew:
    """This process among all: 0 of 1 without torchrun."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def own(self, chunks: list) -> list:
        """This process' share of the chunks of a world."""
        return chunks[self.rank :: self.size]

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients by their mean over all processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(mean.view_as(gradient))

    def sync(self, layer: int, gradients: FastWeights) -> FastWeights:
        """Sum of a memory layer's gradients over all processes, differentiable."""
        if self.size == 1:
            return gradients
        return FastWeights(*(_Sum.apply(g) for g in gradients))

    def agree(self, value: float) -> float:
        """The first process' value, so that all follow one clock."""
        if self.size == 1:
            return value
        holder = torch.tensor([value], dtype=torch.float64, device=_device())
        dist.broadcast(holder, 0)
        return float(holder)


class _Sum(torch.autograd.Function):
    """All-reduce whose derivative is the all-reduce of the derivatives."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


def _device() -> torch.device:
    on_gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def join_crew(device: torch.device) -> Crew:
    """Join the processes that `torchrun` started; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Crew()
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(backend, timeout=_TIMEOUT)
    return Crew(dist.get_rank(), size)


def leave_crew(crew: Crew) -> None:
    """Leave, if there are others."""
    if crew.size > 1:
        dist.destroy_process_group()
