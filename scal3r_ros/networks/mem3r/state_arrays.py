"""The state of the recurrence as arrays and back (names of the specification, section 9.3)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scal3r_ros.networks.mem3r.network import Encoded, Mem3R
from scal3r_ros.networks.mem3r.recurrence import State, begin
from scal3r_ros.networks.mem3r.state_rules import Seen

_FAST_WEIGHTS = ("w1", "w2", "w3")


def state_arrays(network: Mem3R, state: State) -> dict[str, np.ndarray]:
    """Copies, by name."""
    tensors: dict[str, Tensor] = {"state_tokens": state.tokens}
    tensors |= dict(zip(_memory_names(network), state.memory))
    if state.before is not None:
        tensors["previous_features"] = state.before.features
        tensors["previous_candidate"] = state.before.candidate
    if state.last is not None:
        tensors["last_tokens"] = state.last.tokens
        tensors["last_grid"] = torch.tensor(state.last.grid)
    arrays = {name: value.cpu().numpy().copy() for name, value in tensors.items()}
    return arrays | {"first": np.array(state.first)}


def state_from_arrays(network: Mem3R, arrays: Mapping[str, np.ndarray]) -> State:
    """The state of `network`; raises `ValueError` for arrays of another one."""
    empty, device = begin(network), network.pose_token.device
    names = _memory_names(network)
    wanted = {"state_tokens": empty.tokens} | dict(zip(names, empty.memory))
    for name, like in wanted.items():
        found = arrays[name].shape if name in arrays else None
        if found != tuple(like.shape):
            raise ValueError(f"{name} of the memory is {found}, expected {tuple(like.shape)}")
    tensors = {
        name: torch.from_numpy(np.array(value)).to(device)
        for name, value in arrays.items()
        if name != "first"
    }
    before = last = None
    if "previous_features" in tensors:
        before = Seen(tensors["previous_features"], tensors["previous_candidate"])
    if "last_tokens" in tensors:
        rows, columns = arrays["last_grid"].tolist()
        last = Encoded(tensors["last_tokens"], (rows, columns))
    memory = tuple(tensors[name] for name in names)
    return State(tensors["state_tokens"], memory, bool(arrays["first"]), before, last)


def _memory_names(network: Mem3R) -> tuple[str, ...]:
    return ("pose_memory",) if network.uses_slots else _FAST_WEIGHTS
