"""What one window leaves to the next: fast weights by memory layer, keys and values by layer of
window attention.

A state is complete and never written in place once its window has passed. To branch is to keep the
older one; a window that fails leaves no trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scal3r_ros.networks.fast_weights import FastWeights
from scal3r_ros.networks.loger.window_attention import KeysValues


@dataclass
class WindowState:
    """Empty before the first window. Layers are numbered by their place in the network's lists.

    A copy without `weights` or without `cache` runs the network with one of its memories only.
    """

    windows: int = 0
    """How many windows have passed since the state was empty."""
    weights: dict[int, FastWeights] = field(default_factory=dict)
    """Absolute fast weights, not differences; absent: the learned initial ones."""
    cache: dict[int, KeysValues] = field(default_factory=dict)
    """Of the window just before, nothing older; absent: none is attended to."""

    def before_next(self, reset_every: int) -> WindowState:
        """What the next window begins with: every `reset_every` windows the fast weights are the
        learned ones again, while the cache survives. 0 never resets."""
        due = reset_every > 0 and self.windows > 0 and self.windows % reset_every == 0
        return WindowState(self.windows, {}, self.cache) if due else self

    @property
    def nbytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in self.tensors().values())

    @property
    def finite(self) -> bool:
        return all(bool(torch.isfinite(x).all()) for x in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name; shared, not copied."""
        found = {"windows": torch.tensor(self.windows)}
        for kind, layers in (("weights", self.weights), ("cache", self.cache)):
            for layer, triple in layers.items():
                for name, value in triple._asdict().items():
                    found[f"{kind}.layer{layer}.{name}"] = value
        return found


def state_of(tensors: Mapping[str, Tensor], like: WindowShapes) -> WindowState:
    """A state from the tensors of `WindowState.tensors`, on the devices of `like`.

    Raises `ValueError` if they are not those of a state of this network.
    """
    if "windows" not in tensors:
        raise ValueError("not a saved memory of LoGeR: its count of windows is missing")
    remaining = set(tensors) - {"windows"}
    state = WindowState(int(tensors["windows"]))
    for layer, shapes in like.weights.items():
        names = [f"weights.layer{layer}.{name}" for name in FastWeights._fields]
        if remaining & set(names):
            parts = (_checked(tensors, n, s) for n, s in zip(names, shapes))
            state.weights[layer] = FastWeights(*parts)
            remaining -= set(names)
    for layer, shape in like.cache.items():
        names = [f"cache.layer{layer}.{name}" for name in KeysValues._fields]
        if remaining & set(names):
            state.cache[layer] = KeysValues(*(_checked(tensors, n, shape) for n in names))
            remaining -= set(names)
    if remaining:
        raise ValueError(
            f"saved memory belongs to another network: unexpected {sorted(remaining)[:10]}"
        )
    return state


@dataclass(frozen=True)
class WindowShapes:
    """Tensors that say, by layer, the shape and device of a state; -1 fits any size."""

    weights: Mapping[int, tuple[Shape, Shape, Shape]]
    cache: Mapping[int, Shape]


@dataclass(frozen=True)
class Shape:
    sizes: tuple[int, ...]
    device: torch.device


def _checked(tensors: Mapping[str, Tensor], name: str, shape: Shape) -> Tensor:
    if name not in tensors:
        raise ValueError(f"saved memory lacks {name}; it is damaged or from another network")
    value = tensors[name]
    fits = len(value.shape) == len(shape.sizes) and all(
        wanted in (-1, found) for found, wanted in zip(value.shape, shape.sizes)
    )
    if not fits or not value.is_floating_point():
        raise ValueError(
            f"saved memory has {name} as {tuple(value.shape)} {value.dtype}, expected "
            f"{shape.sizes} of floating point"
        )
    if not torch.isfinite(value).all():
        raise ValueError(f"saved memory holds numbers that are not finite in {name}")
    return value.to(shape.device, copy=True)
