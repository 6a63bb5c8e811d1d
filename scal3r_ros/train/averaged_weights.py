"""Moving average of weights, which generalises better than the last step's."""

from __future__ import annotations

import torch
from torch import nn


class AveragedWeights:
    """Exponential moving average of a network's parameters."""

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, steps: int) -> None:
        """Move the average towards the network; faster in the first steps."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        present = network.state_dict()
        values = list(self.values.values())
        torch._foreach_lerp_(values, [present[k] for k in self.values], 1 - decay)
