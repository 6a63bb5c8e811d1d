"""What is trained: a network with a good start, its probe, averaged weights and optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from scal3r_ros.model.architecture import Architecture, Numerics
from scal3r_ros.model.checkpoint import check_state, checkpoint_files, read_state
from scal3r_ros.model.network import Scal3R
from scal3r_ros.train.probe import DisplacementProbe, write_place_code
from scal3r_ros.train.run_state import AveragedWeights
from scal3r_ros.train.schedule import Schedule

_MEAN_FOV = (0.95, 1.2)


@dataclass
class Learner:
    """Network and everything that changes with it."""

    network: Scal3R
    probe: DisplacementProbe
    average: AveragedWeights
    optimizer: torch.optim.AdamW

    @property
    def trained(self) -> list[Tensor]:
        """Parameters of the network that change."""
        return [p for p in self.network.parameters() if p.requires_grad]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network with its averaged weights, for as long as the block lasts."""
        present = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average.values)
        try:
            yield
        finally:
            self.network.load_state_dict(present)


def make_learner(
    architecture: Architecture,
    schedule: Schedule,
    device: torch.device,
    start: str = "",
    parts: str = "all",
) -> Learner:
    """A fresh learner, or one from the checkpoint `start`, whose architecture then counts.

    parts: `all`, or `memory` to change the memory units only.
    """
    numerics = Numerics(
        blocks=schedule.precision, token_slice=None, head_batch=10**6, encoder_batch=10**6
    )
    if start:
        network = _from_checkpoint(start, numerics)
    else:
        network = Scal3R(architecture, numerics)
        start_at_the_mean(network)
    network.to(device)
    if parts == "memory":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(".ttt." in name)
    probe = DisplacementProbe(network, schedule.matching_layers[-1]).to(device)
    average = AveragedWeights(network, schedule.ema)
    return Learner(network, probe, average, _optimizer(network, probe, schedule))


def _from_checkpoint(path: str, numerics: Numerics) -> Scal3R:
    state, stored = read_state(checkpoint_files(path))
    network = Scal3R(stored or Architecture(), numerics)
    check_state(state, network.state_dict(), path)
    network.load_state_dict(state)
    return network


@torch.no_grad()
def start_at_the_mean(network: Scal3R) -> None:
    """Begin with the mean camera for every frame, places in the tokens, and silent memory units."""
    write_place_code(network)
    last, iterations = network.cam_decoder.pose_branch.fc2, network.cam_decoder.iterations
    last.weight.zero_()
    last.bias.zero_()
    last.bias[6] = 1.0 / iterations
    last.bias[7:] = torch.tensor(_MEAN_FOV) / iterations
    for layer in network.architecture.ttt_layers:
        network.agg_regator.memory_unit(layer).proj.bias.zero_()


def _optimizer(network: Scal3R, probe: DisplacementProbe, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices, and an own rate for the memory units."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {(False, False): list(probe.parameters())}
    for name, parameter in network.named_parameters():
        matrix = parameter.ndim >= 2 and "token" not in name and "pos_" not in name
        if parameter.requires_grad:
            groups.setdefault((".ttt." in name, matrix), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": schedule.memory_rate if memory else schedule.learning_rate,
                "weight_decay": schedule.weight_decay if matrix else 0.0,
            }
            for (memory, matrix), parameters in groups.items()
        ],
        lr=schedule.learning_rate,
        betas=schedule.betas,
        fused=True,
    )
