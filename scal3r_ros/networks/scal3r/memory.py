"""The network's memory over chunks: running sums of raw gradients, one triple per memory layer.

For each memory layer l the memory keeps G_l, the sum of the gradients of all absorbed chunks at the
initial fast weights, and every chunk reads W_l = renorm(W0_l + NS5(G_l)). A chunk, or several side
by side, are processed in a round: the round stages its gradients and sees memory plus stage; only
`Round.commit` advances the memory, so a round that fails anywhere leaves no trace.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from scal3r_ros.networks.fast_weights import FastWeights
from scal3r_ros.networks.scal3r.memory_unit import MemoryUnit

_BUCKETS = 4

Sync = Callable[[int, FastWeights], FastWeights]
"""Layer and this process' gradients to the gradients of all processes of the round."""
Deltas = Mapping[int, FastWeights]
"""By memory layer: what a round adds."""


class NotFinite(ValueError):
    """Gradients hold NaN or infinity; the memory would keep them for good, so none of the round
    is absorbed."""

    def __init__(self, layer: int, places: tuple[int, ...]):
        super().__init__(layer, places)
        self.layer, self.places = layer, places
        """Places in the round of the chunks at fault; empty if that is not known."""

    def __str__(self) -> str:
        return f"gradients of memory layer {self.layer} are not finite (chunks {self.places})"


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


@dataclass(frozen=True)
class CausalMemory:
    """Chunks of one round read what they and those before them wrote: a stream in one call, with
    derivatives through every update; for training."""

    newton_schulz: str = "float32"

    def adapt(
        self, layer: int, unit: MemoryUnit, gradients: Iterable[FastWeights]
    ) -> list[FastWeights]:
        dtype = getattr(torch, self.newton_schulz)
        return [unit.update(total, dtype) for total in accumulate(gradients, operator.add)]


@dataclass(frozen=True)
class _Bucket:
    """Gradient sums of some consecutive chunks."""

    chunks: int = 0
    sums: Mapping[int, FastWeights] = field(default_factory=dict)

    def plus(self, deltas: Deltas, chunks: int) -> _Bucket:
        deltas = {k: FastWeights(*(x.detach() for x in g)) for k, g in deltas.items()}
        added = {k: self.sums[k] + g if k in self.sums else g for k, g in deltas.items()}
        return _Bucket(self.chunks + chunks, {**self.sums, **added})

    def scaled(self, factor: float) -> _Bucket:
        if factor == 1.0:
            return self
        return _Bucket(self.chunks, {k: g.scaled(factor) for k, g in self.sums.items()})


@dataclass(frozen=True)
class _Sums:
    """All that the memory holds. It is replaced as one, so a reader in another thread never sees
    half a commit."""

    chunks: int = 0
    buckets: tuple[_Bucket, ...] = (_Bucket(),)


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

    @property
    def chunks(self) -> int:
        """Chunks absorbed since the last reset."""
        return self._sums.chunks

    def reset(self) -> None:
        self._sums = _Sums()

    def round(
        self,
        chunks: int = 1,
        contribute: bool = True,
        places: Sequence[int] | None = None,
        size: int | None = None,
        sync: Sync | None = None,
        checked: bool = True,
    ) -> Round:
        """Open a round in which this process handles `chunks` chunks.

        Over several processes, `size` is the number of chunks of the whole round and `places` says
        which of them are handled here; with one process that is all of them in order. Without
        `contribute` the chunks read the memory and leave no trace. A round that is `checked` raises
        `NotFinite` before anybody else is given such gradients; training goes without.
        """
        size = chunks if size is None else size
        places = tuple(range(chunks)) if places is None else tuple(places)
        if len(places) != chunks or any(not 0 <= place < size for place in places):
            raise ValueError(
                f"{chunks} chunks need as many places in a round of {size}, found {places}"
            )
        return Round(self, places, size, contribute, sync or self.sync, checked)

    def total(self, layer: int) -> FastWeights | None:
        """G_l, None before anything was absorbed."""
        present = [b.sums[layer] for b in self._sums.buckets if layer in b.sums]
        return sum(present[1:], present[0]) if present else None

    def merge(self, deltas: Deltas, chunks: int) -> None:
        """Absorb the deltas of `chunks` chunks, from a round here or elsewhere. The only way in
        beside `load_state_dict`; both refuse numbers that are not finite and change nothing."""
        for layer, delta in deltas.items():
            if not delta.is_finite:
                raise NotFinite(layer, ())
        older = [bucket.scaled(self.decay**chunks) for bucket in self._sums.buckets]
        buckets = (*older[:-1], older[-1].plus(deltas, chunks))
        if self.window and buckets[-1].chunks >= -(-self.window // _BUCKETS):
            buckets = (*buckets[-(_BUCKETS - 1) :], _Bucket())
        self._sums = _Sums(self.chunks + chunks, buckets)

    def state_dict(self) -> dict[str, Tensor]:
        """All sums and counts as tensors; the sums are shared, not copied."""
        present = self._sums
        tensors = {"chunks": torch.tensor(present.chunks)}
        tensors["bucket_chunks"] = torch.tensor([b.chunks for b in present.buckets])
        for i, bucket in enumerate(present.buckets):
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
        saved = _read_sums(tensors, expected)
        if not self.window and len(saved.buckets) > 1:
            raise ValueError(
                f"the saved memory has {len(saved.buckets)} buckets of a forgetting window; set "
                f"memory.window as it was when saved"
            )
        self._sums = saved


class Round:
    """One round of chunks: reads memory plus its own stage, and is committed or forgotten."""

    def __init__(
        self,
        memory: ContextMemory,
        places: tuple[int, ...],
        size: int,
        contribute: bool,
        sync: Sync,
        checked: bool = True,
    ):
        self.memory, self.places, self.size = memory, places, size
        self.contribute, self.sync, self.checked = contribute, sync, checked
        self.deltas: dict[int, FastWeights] = {}
        """By layer: weighted gradient sum of the round over all processes."""

    def adapt(self, layer: int, unit: MemoryUnit, gradients: Iterable[FastWeights]) -> FastWeights:
        before = self.memory.total(layer)
        if not self.contribute:
            return unit.initial() if before is None else unit.update(before, self.memory.dtype)
        delta = self.sync(layer, self._own(layer, unit, gradients))
        if self.checked and not delta.is_finite:
            raise NotFinite(layer, ())
        self.deltas[layer] = delta
        if before is not None:
            delta = before.scaled(self.memory.decay**self.size) + delta
        return unit.update(delta, self.memory.dtype)

    def commit(self) -> None:
        """Advance the memory by this round; call it once, when every process has finished."""
        if self.contribute:
            self.memory.merge(self.deltas, self.size)
        self.deltas = {}

    def _own(self, layer: int, unit: MemoryUnit, gradients: Iterable[FastWeights]) -> FastWeights:
        total: FastWeights | None = None
        at_fault = []
        for place, g in zip(self.places, gradients):
            if self.checked and not g.is_finite:
                at_fault.append(place)
            weight = self.memory.decay ** (self.size - 1 - place)
            g = g if weight == 1.0 else g.scaled(weight)
            total = g if total is None else total + g
        if at_fault:
            raise NotFinite(layer, tuple(at_fault))
        return unit.zero_gradient() if total is None else total


def _read_sums(tensors: Mapping[str, Tensor], expected: Mapping[int, FastWeights]) -> _Sums:
    if "chunks" not in tensors or "bucket_chunks" not in tensors:
        raise ValueError("not a saved memory: its chunk counts are missing")
    remaining = set(tensors) - {"chunks", "bucket_chunks"}
    buckets = []
    for i, chunks in enumerate(tensors["bucket_chunks"].tolist()):
        sums = {}
        for layer, shapes in expected.items():
            names = [f"bucket{i}.layer{layer}.{name}" for name in shapes._fields]
            if chunks or remaining & set(names):
                found = (_read_tensor(tensors, name, like) for name, like in zip(names, shapes))
                sums[layer] = FastWeights(*found)
                remaining -= set(names)
        buckets.append(_Bucket(int(chunks), sums))
    if remaining:
        raise ValueError(
            f"saved memory belongs to another network: unexpected {sorted(remaining)[:10]}"
        )
    return _Sums(int(tensors["chunks"]), tuple(buckets))


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
