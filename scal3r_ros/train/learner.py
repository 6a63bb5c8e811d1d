"""What is trained: a network with a good start, its read-outs, averaged weights and optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from scal3r_ros.model.architecture import Architecture, Numerics
from scal3r_ros.model.checkpoint import check_state, checkpoint_files, read_state
from scal3r_ros.model.network import Scal3R
from scal3r_ros.train.probe import Probes, write_place_code
from scal3r_ros.train.run_state import AveragedWeights
from scal3r_ros.train.schedule import Schedule

_MEAN_FOV = (0.95, 1.2)


@dataclass
class Learner:
    """Network and everything that changes with it."""

    network: Scal3R
    probes: Probes
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
    probes = Probes(network, schedule.matching_layers[-1]).to(device)
    average = AveragedWeights(network, schedule.ema)
    return Learner(network, probes, average, _optimizer(network, probes, schedule))


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
    torch.nn.init.normal_(last.weight, std=1e-3)
    last.bias.zero_()
    last.bias[6] = 1.0 / iterations
    last.bias[7:] = torch.tensor(_MEAN_FOV) / iterations
    for layer in network.architecture.ttt_layers:
        network.agg_regator.memory_unit(layer).proj.bias.zero_()


def _optimizer(network: Scal3R, probes: Probes, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices, and an own rate for the memory units."""
    groups: dict[tuple[str, bool], list[Tensor]] = {("rest", False): list(probes.parameters())}
    for name, parameter in network.named_parameters():
        matrix = parameter.ndim >= 2 and "token" not in name and "pos_" not in name
        if parameter.requires_grad:
            groups.setdefault((_rate_name(name), matrix), []).append(parameter)
    rates = {
        "memory": schedule.memory_rate,
        "camera": schedule.camera_rate,
        "rest": schedule.learning_rate,
    }
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": rates[part],
                "weight_decay": schedule.weight_decay if matrix else 0.0,
            }
            for (part, matrix), parameters in groups.items()
        ],
        lr=schedule.learning_rate,
        betas=schedule.betas,
        fused=True,
    )


def _rate_name(parameter: str) -> str:
    if ".ttt." in parameter:
        return "memory"
    return "camera" if parameter.startswith("cam_decoder.") else "rest"
