"""Reference outputs of the CUT3R family: where they are, how they are read and compared.

MEM3R_GOLDEN_DIR names another folder of the same form; sizes, cases and seeds come from the files.
"""

import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from scal3r_ros.networks.mem3r.architecture import Architecture
from scal3r_ros.networks.mem3r.network import Mem3R

FOLDER = Path(os.environ.get("MEM3R_GOLDEN_DIR", Path(__file__).resolve().parent / "golden"))


@dataclass(frozen=True)
class Golden:
    """One fixture file."""

    tensors: dict[str, Tensor]
    settings: dict

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def numbers(self, pattern: str) -> list[int]:
        """Sorted distinct numbers that the group of `pattern` takes among the tensor names."""
        found = (re.match(pattern, key) for key in self.tensors)
        return sorted({int(match[1]) for match in found if match})

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start so, without it."""
        start = len(prefix)
        return {key[start:]: v for key, v in self.tensors.items() if key.startswith(prefix)}


@cache
def load(name: str) -> Golden:
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as stream:
        tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
        settings = json.loads((stream.metadata() or {}).get("settings") or "{}")
    return Golden(tensors, settings)


def scaled(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest entry of `expected`."""
    assert found.shape == expected.shape, f"{tuple(found.shape)}, not {tuple(expected.shape)}"
    found, expected = found.detach().double(), expected.double()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def architecture(**changes) -> Architecture:
    """Of the reduced model."""
    described = json.loads((FOLDER / "model_config.json").read_text())
    assert described["rope_base"] == 100
    config, dpt = dict(described["config"]), described["dpt"]
    config.pop("img_size")
    config |= {
        "dpt_features": dpt["feature_dim"],
        "dpt_last": dpt["last_dim"],
        "dpt_layers": tuple(dpt["layer_dims"]),
    }
    return Architecture.from_dict(config | changes)


def weights() -> dict[str, Tensor]:
    return {key: value.float() for key, value in load("model_weights").tensors.items()}


@cache
def cut3r() -> Mem3R:
    """The reduced model, strictly loaded."""
    network = Mem3R(architecture())
    network.load_state_dict(weights(), strict=True)
    return network.eval().requires_grad_(False)


@cache
def mem3r() -> Mem3R:
    """The same weights without the slots, with those of Mem3R's two modules."""
    shared = {k: v for k, v in weights().items() if not k.startswith("pose_retriever.")}
    own = {k: v.float() for k, v in load("mem3r_weights").tensors.items()}
    settings = load("mem3r_weights").settings
    network = Mem3R(
        architecture(
            pose_memory="fast_weights", lr_base=settings["lr_base"], decay=settings["gamma"]
        )
    )
    network.load_state_dict(shared | own, strict=True)
    return network.eval().requires_grad_(False)


def images_of(golden: Golden) -> Tensor:
    """Network input (N, 3, H, W) of a fixture's pictures."""
    return golden["images_u8"].float() / 127.5 - 1
