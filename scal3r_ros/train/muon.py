"""Optimiser for weight matrices: momentum whose singular values are all pushed to one (Muon)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from scal3r_ros.networks.fast_weights import newton_schulz

_STEPS = 5
_UPDATE_SIZE = 0.2
"""Root mean square of an update relative to the rate: that of Adam, so that both take one rate."""


class Muon(torch.optim.Optimizer):
    """Every matrix moves by the orthogonalised mean of its gradients.

    Groups may say how many matrices are stacked along the rows of each parameter (`stacked`), as
    queries, keys and values are.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "stacked": 1}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Move all parameters that have a gradient."""
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            updates = _orthogonal([self._mean(p, group) for p in moving])
            shrink = 1 - group["lr"] * group["weight_decay"]
            for parameter, update in zip(moving, updates):
                parameter.mul_(shrink)
                parameter.sub_(update.reshape_as(parameter), alpha=group["lr"])

    def _mean(self, parameter: Tensor, group: dict) -> Tensor:
        """Gradient after Nesterov momentum, (stacked, rows, columns)."""
        state, gradient = self.state[parameter], parameter.grad
        if "mean" not in state:
            state["mean"] = torch.zeros_like(gradient)
        state["mean"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(state["mean"], group["momentum"]).unflatten(0, (group["stacked"], -1))


def _orthogonal(means: list[Tensor]) -> list[Tensor]:
    """The nearest semi-orthogonal matrices, scaled to the usual size of an update; matrices of
    one shape are iterated together."""
    together: dict[tuple[int, int], list[int]] = {}
    for i, mean in enumerate(means):
        together.setdefault((mean.shape[1], mean.shape[2]), []).append(i)
    updates: list[Tensor] = list(means)
    for (rows, columns), members in together.items():
        size = _UPDATE_SIZE * max(rows, columns) ** 0.5
        joined = newton_schulz(torch.cat([means[i] for i in members]), _STEPS, torch.float32)
        parts = joined.split([len(means[i]) for i in members])
        for i, part in zip(members, parts):
            updates[i] = size * part
    return updates
