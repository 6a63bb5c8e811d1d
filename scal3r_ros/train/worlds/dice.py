"""Random numbers by seed, the same on every device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Dice:
    """Random numbers of one generator, on the CPU so that a seed means the same world on every
    device."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform values in [low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values."""
        return torch.randn(shape, generator=self.generator)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Integers in [low, high)."""
        return torch.randint(low, high, shape, generator=self.generator)

    def coin(self, probability: float, *shape: int) -> Tensor:
        """True with the given probability."""
        return torch.rand(shape, generator=self.generator) < probability

    def weighted(self, weights: Mapping[str, float]) -> str:
        """One of the names, in proportion to its weight."""
        drawn = torch.multinomial(torch.tensor(list(weights.values())), 1, generator=self.generator)
        return list(weights)[int(drawn)]

    def direction(self, *shape: int) -> Tensor:
        """Uniform unit vectors, (*shape, 3)."""
        return torch.nn.functional.normalize(self.normal(*shape, 3), dim=-1)
