"""What is trained: a network with a good start, its read-outs, averaged weights and optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scal3r_ros.networks.scal3r.architecture import Architecture, Numerics
from scal3r_ros.networks.scal3r.network import Scal3R
from scal3r_ros.networks.xfeat import read_weights, weights_file
from scal3r_ros.train.averaged_weights import AveragedWeights
from scal3r_ros.train.muon import Muon
from scal3r_ros.train.probe import Probes, write_place_code
from scal3r_ros.train.schedule import Schedule

PARTS: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "memory": lambda name: ".ttt." in name,
    "trunk": lambda name: ".backbone." not in name,
}
"""Which weights belong to a part, by their names; the trunk is everything but the convolutions of
the encoder."""
_MEAN_FOV = (0.95, 1.2)


@dataclass
class Learner:
    """Network and everything that changes with it."""

    network: Scal3R
    probes: Probes
    average: AveragedWeights
    optimizers: tuple[torch.optim.Optimizer, ...]

    @property
    def trained(self) -> list[Tensor]:
        """Parameters of the network that change."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def choose(self, parts: str) -> None:
        """Which weights change from now on, a name of `PARTS`."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(PARTS[parts](name))

    def set_rate(self, factor: float) -> None:
        """Learning rates as a share of their peaks."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor

    def step(self) -> None:
        """Follow the gradients."""
        for optimizer in self.optimizers:
            optimizer.step()

    def forget_gradients(self) -> None:
        """Before the next backward pass."""
        for parameter in (*self.network.parameters(), *self.probes.parameters()):
            parameter.grad = None

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
) -> Learner:
    """A fresh learner, or one from the checkpoint `start`, whose architecture then counts, but for
    the size of images."""
    numerics = Numerics(
        blocks=schedule.precision, token_slice=None, head_batch=10**6, encoder_batch=10**6
    )
    if start:
        network = _from_checkpoint(start, numerics, architecture.image_size)
    else:
        network = Scal3R(architecture, numerics)
        start_at_the_mean(network)
        if architecture.encoder == "xfeat":
            network.agg_regator.patch_embed.backbone.read_xfeat(read_weights(weights_file()))
    network.to(device)
    probes = Probes(network, schedule.matching_layers[-1]).to(device)
    average = AveragedWeights(network, schedule.ema)
    return Learner(network, probes, average, _optimizers(network, probes, schedule))


def _from_checkpoint(path: str, numerics: Numerics, image_size: int) -> Scal3R:
    # here, so that a fresh run needs no library for checkpoints
    from scal3r_ros.networks.checkpoint import check_state
    from scal3r_ros.networks.scal3r.checkpoint import read_state

    state, stored = read_state(path)
    network = Scal3R(replace(stored or Architecture(), image_size=image_size), numerics)
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


def _optimizers(
    network: Scal3R, probes: Probes, schedule: Schedule
) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW, with weight decay on matrices and own rates for memory units and camera head; the
    matrices of blocks go to Muon where the schedule says so."""
    adam: dict[tuple[str, bool], list[Tensor]] = {("rest", False): list(probes.parameters())}
    muon: dict[tuple[str, int], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        part = _rate_name(name)
        if schedule.muon and _is_block_matrix(name, parameter):
            muon.setdefault((part, 3 if "qkv" in name else 1), []).append(parameter)
        else:
            matrix = parameter.ndim >= 2 and "token" not in name and "pos_" not in name
            adam.setdefault((part, matrix), []).append(parameter)
    decay = schedule.weight_decay
    groups = [
        {"params": p, "peak": _peak(part, schedule), "weight_decay": decay if matrix else 0.0}
        for (part, matrix), p in adam.items()
    ]
    rate = schedule.learning_rate
    found = (torch.optim.AdamW(groups, lr=rate, betas=schedule.betas, fused=True),)
    if muon:
        groups = [
            {"params": p, "peak": _peak(part, schedule), "stacked": stacked}
            for (part, stacked), p in muon.items()
        ]
        found += (Muon(groups, lr=rate, weight_decay=decay),)
    return found


def _is_block_matrix(name: str, parameter: Tensor) -> bool:
    inside = (".attn.", ".mlp.", ".ttt.qkv.", ".ttt.proj.", "pose_branch.fc1.")
    return parameter.ndim == 2 and any(word in name for word in inside)


def _peak(part: str, schedule: Schedule) -> float:
    rates = {
        "memory": schedule.memory_rate,
        "camera": schedule.camera_rate,
        "encoder": schedule.encoder_rate,
    }
    return rates.get(part, schedule.learning_rate)


def _rate_name(parameter: str) -> str:
    if ".ttt." in parameter:
        return "memory"
    if ".backbone." in parameter:
        return "encoder"
    return "camera" if parameter.startswith("cam_decoder.") else "rest"
