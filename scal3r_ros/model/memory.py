"""The network's memory over chunks: running sums of raw gradients, one triple per memory layer.

For each memory layer l the memory keeps G_l, the sum of the gradients of all absorbed chunks at the
initial fast weights, and every chunk reads W_l = renorm(W0_l + NS5(G_l)). A chunk, or several side
by side, are processed in a round: the round stages its gradients and sees memory plus stage; only
`Round.commit` advances the memory, so a round that fails anywhere leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from scal3r_ros.model.fast_weights import FastWeights, MemoryUnit

_BUCKETS = 4

Sync = Callable[[int, FastWeights], FastWeights]
"""Layer and this process' gradients to the gradients of all processes of the round."""
Deltas = Mapping[int, FastWeights]
"""By memory layer: what a round adds."""


def no_sync(layer: int, gradients: FastWeights) -> FastWeights:
    """The exchange of a single process."""
    return gradients


class RoundMemory(Protocol):
    """What the schedule asks at every memory layer."""

    def adapt(
        self, layer: int, unit: MemoryUnit, gradients: Iterable[FastWeights]
    ) -> FastWeights | list[FastWeights] | None:
        """Fast weights to read with: one for all chunks, one per chunk, or None to leave the
        memory's answer out. `gradients` are computed only if they are taken from the iterable."""


class NoMemory:
    """The network without its memory units; for comparison."""

    def adapt(self, layer: int, unit: MemoryUnit, gradients: Iterable[FastWeights]) -> None:
        return None


@dataclass(frozen=True)
class LocalMemory:
    """Every chunk reads what it wrote itself and nothing else; for comparison."""

    newton_schulz: str = "float32"

    def adapt(
        self, layer: int, unit: MemoryUnit, gradients: Iterable[FastWeights]
    ) -> list[FastWeights]:
        return [unit.update(g, getattr(torch, self.newton_schulz)) for g in gradients]


@dataclass
class _Bucket:
    """Gradient sums of some consecutive chunks."""

    chunks: int = 0
    sums: dict[int, FastWeights] = field(default_factory=dict)


class ContextMemory:
    """Gradient sums of a session. `window` keeps a whole number of buckets of chunks and drops the
    oldest; `decay` multiplies what is there once per absorbed chunk. Neither changes how strongly
    the memory acts, since the update sees only the direction of the sum."""

    def __init__(
        self,
        newton_schulz: str = "float32",
        decay: float = 1.0,
        window: int = 0,
        sync: Sync = no_sync,
    ):
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"memory.decay must be between 0 and 1, found {decay}")
        if window < 0:
            raise ValueError(f"memory.window must be at least 0 chunks, found {window}")
        self.dtype = getattr(torch, newton_schulz)
        self.decay = decay
        self.window = window
        self.sync = sync
        self.reset()

    def reset(self) -> None:
        self.chunks = 0
        """Chunks absorbed since the last reset."""
        self._buckets = [_Bucket()]

    def round(
        self,
        chunks: int = 1,
        contribute: bool = True,
        places: Sequence[int] | None = None,
        size: int | None = None,
        sync: Sync | None = None,
    ) -> Round:
        """Open a round in which this process handles `chunks` chunks.

        Over several processes, `size` is the number of chunks of the whole round and `places` says
        which of them are handled here; with one process that is all of them in order. Without
        `contribute` the chunks read the memory and leave no trace.
        """
        size = chunks if size is None else size
        places = tuple(range(chunks)) if places is None else tuple(places)
        if len(places) != chunks or any(not 0 <= place < size for place in places):
            raise ValueError(
                f"{chunks} chunks need as many places in a round of {size}, found {places}"
            )
        return Round(self, places, size, contribute, sync or self.sync)

    def total(self, layer: int) -> FastWeights | None:
        """G_l, None before anything was absorbed."""
        present = [b.sums[layer] for b in self._buckets if layer in b.sums]
        return sum(present[1:], present[0]) if present else None

    def merge(self, deltas: Deltas, chunks: int) -> None:
        """Absorb the deltas of `chunks` chunks, from a round here or elsewhere."""
        factor = self.decay**chunks
        for bucket in self._buckets:
            if factor != 1.0:
                bucket.sums = {k: g.scaled(factor) for k, g in bucket.sums.items()}
        newest = self._buckets[-1]
        for layer, delta in deltas.items():
            known = newest.sums.get(layer)
            delta = FastWeights(*(x.detach() for x in delta))
            newest.sums[layer] = delta if known is None else known + delta
        newest.chunks += chunks
        self.chunks += chunks
        if self.window and newest.chunks >= -(-self.window // _BUCKETS):
            self._buckets = [*self._buckets[-(_BUCKETS - 1) :], _Bucket()]

    def state_dict(self) -> dict[str, Tensor]:
        """All sums and counts as tensors; the sums are shared, not copied."""
        tensors = {"chunks": torch.tensor(self.chunks)}
        tensors["bucket_chunks"] = torch.tensor([b.chunks for b in self._buckets])
        for i, bucket in enumerate(self._buckets):
            for layer, sums in bucket.sums.items():
                for name, value in sums._asdict().items():
                    tensors[f"bucket{i}.layer{layer}.{name}"] = value
        return tensors

    def load_state_dict(
        self, tensors: Mapping[str, Tensor], expected: Mapping[int, FastWeights]
    ) -> None:
        """Replace the memory by a saved one. `expected` holds one triple per memory layer of the
        network, for shapes and device. Raises `ValueError` and changes nothing if it does not fit.
        """
        buckets, chunks = _read_buckets(tensors, expected)
        if not self.window and len(buckets) > 1:
            raise ValueError(
                f"the saved memory has {len(buckets)} buckets of a forgetting window; set "
                f"memory.window as it was when saved"
            )
        self._buckets, self.chunks = buckets, chunks


class Round:
    """One round of chunks: reads memory plus its own stage, and is committed or forgotten."""

    def __init__(
        self,
        memory: ContextMemory,
        places: tuple[int, ...],
        size: int,
        contribute: bool,
        sync: Sync,
    ):
        self.memory, self.places, self.size = memory, places, size
        self.contribute, self.sync = contribute, sync
        self.deltas: dict[int, FastWeights] = {}
        """By layer: weighted gradient sum of the round over all processes."""

    def adapt(self, layer: int, unit: MemoryUnit, gradients: Iterable[FastWeights]) -> FastWeights:
        before = self.memory.total(layer)
        if not self.contribute:
            return unit.initial() if before is None else unit.update(before, self.memory.dtype)
        delta = self.sync(layer, self._own(unit, gradients))
        self.deltas[layer] = delta
        if before is not None:
            delta = before.scaled(self.memory.decay**self.size) + delta
        return unit.update(delta, self.memory.dtype)

    def commit(self) -> None:
        """Advance the memory by this round; call it once, when every process has finished."""
        if self.contribute:
            self.memory.merge(self.deltas, self.size)
        self.deltas = {}

    def _own(self, unit: MemoryUnit, gradients: Iterable[FastWeights]) -> FastWeights:
        total: FastWeights | None = None
        for place, g in zip(self.places, gradients):
            weight = self.memory.decay ** (self.size - 1 - place)
            g = g if weight == 1.0 else g.scaled(weight)
            total = g if total is None else total + g
        return unit.zero_gradient() if total is None else total


def _read_buckets(
    tensors: Mapping[str, Tensor], expected: Mapping[int, FastWeights]
) -> tuple[list[_Bucket], int]:
    if "chunks" not in tensors or "bucket_chunks" not in tensors:
        raise ValueError("not a saved memory: its chunk counts are missing")
    buckets = [_Bucket(int(n)) for n in tensors["bucket_chunks"].tolist()]
    remaining = set(tensors) - {"chunks", "bucket_chunks"}
    for i, bucket in enumerate(buckets):
        for layer, shapes in expected.items():
            names = [f"bucket{i}.layer{layer}.{name}" for name in shapes._fields]
            if bucket.chunks == 0 and not remaining & set(names):
                continue
            bucket.sums[layer] = FastWeights(
                *(_read_tensor(tensors, name, like) for name, like in zip(names, shapes))
            )
            remaining -= set(names)
    if remaining:
        raise ValueError(
            f"saved memory belongs to another network: unexpected {sorted(remaining)[:10]}"
        )
    return buckets, int(tensors["chunks"])


def _read_tensor(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    if name not in tensors:
        raise ValueError(f"saved memory lacks {name}; it is damaged or from another network")
    value = tensors[name]
    if value.shape != like.shape or value.dtype != torch.float32:
        raise ValueError(
            f"saved memory has {name} as {tuple(value.shape)} {value.dtype}, expected "
            f"{tuple(like.shape)} float32"
        )
    if not torch.isfinite(value).all():
        raise ValueError(f"saved memory holds numbers that are not finite in {name}")
    return value.to(like.device, copy=True)
