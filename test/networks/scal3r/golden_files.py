"""Reference outputs on disk: where they are, how they are read, how they are compared."""

import json
import os
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from scal3r_ros.networks.fast_weights import FastWeights
from scal3r_ros.networks.layers import Rotary, rotary_table
from scal3r_ros.networks.scal3r.architecture import Architecture, Numerics
from scal3r_ros.networks.scal3r.memory import ContextMemory
from scal3r_ros.networks.scal3r.memory_unit import MemoryUnit
from scal3r_ros.networks.scal3r.network import Scal3R

FOLDER = Path(os.environ.get("SCAL3R_GOLDEN_DIR", Path(__file__).resolve().parent / "golden"))

LAYER_WEIGHTS = r"ttt\.layer(\d+)\.w0_updated"


@dataclass(frozen=True)
class Golden:
    """One fixture file."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def setting(self, key: str):
        return json.loads(self.metadata[key])

    def numbers(self, pattern: str) -> list[int]:
        """Sorted distinct numbers that the group of `pattern` takes among the tensor names."""
        found = (re.match(pattern, key) for key in self.tensors)
        return sorted({int(match[1]) for match in found if match})


@cache
def load(name: str) -> Golden:
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as stream:
        tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
        return Golden(tensors, stream.metadata())


def architecture() -> Architecture:
    return Architecture.from_json((FOLDER / "model_config.json").read_text())


def weights() -> dict[str, Tensor]:
    return {key: value.float() for key, value in load("model_weights").tensors.items()}


def small_scale_weights(golden: Golden) -> dict[str, Tensor]:
    """The weights after the factors and offsets that the fixture lists."""
    state = weights()
    for pattern, factor in golden.setting("weight_factors"):
        state |= {key: value * factor for key, value in state.items() if re.search(pattern, key)}
    for key, elements, offset in golden.setting("weight_offsets"):
        state[key] = state[key].clone()
        state[key][[int(i) for i in re.findall(r"\d+", elements)]] += offset
    return state


class WatchedNetwork(Scal3R):
    """The network, noting every collected feature (S, P, 2C) by layer, one per chunk."""

    def __init__(self, state: dict[str, Tensor], newton_schulz: str):
        super().__init__(architecture(), Numerics(newton_schulz=newton_schulz))
        self.load_state_dict(state, strict=True)
        self.requires_grad_(False)
        self.features: dict[int, list[Tensor]] = {}

    def collect(self, state, layer, frame_half, tokens):
        feature = torch.cat((frame_half, tokens), dim=-1)[0]
        self.features.setdefault(layer, []).append(feature)
        super().collect(state, layer, frame_half, tokens)


def scaled(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected magnitude."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest relative difference of one element."""
    assert found.shape == expected.shape
    return ((found - expected).abs() / expected.abs()).max().item()


def frobenius(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return (torch.linalg.norm(found - expected) / torch.linalg.norm(expected)).item()


def check_outputs(prediction, golden: Golden, prefix: str = "", factor: float = 1.0) -> None:
    """Heads of one chunk against the fixture; `factor` 1 is the forced tolerance."""
    tolerance = 1e-4 * factor
    cameras = golden[f"{prefix}camera_iterations"]
    assert prediction.cameras[:, 0].shape == cameras.shape
    assert (prediction.cameras[:, 0] - cameras).abs().max() <= tolerance
    assert relative(prediction.depth[0], golden[f"{prefix}depth"]) <= tolerance
    assert relative(prediction.depth_confidence[0], golden[f"{prefix}depth_conf"]) <= tolerance
    assert relative(prediction.points_confidence[0], golden[f"{prefix}points_conf"]) <= tolerance
    assert scaled(prediction.points[0], golden[f"{prefix}points"]) <= tolerance


def check_outputs_loosely(prediction, golden: Golden, prefix: str = "") -> None:
    """Free-running bfloat16 Newton-Schulz is reproducible to per cents only."""
    assert frobenius(prediction.cameras[:, 0], golden[f"{prefix}camera_iterations"]) <= 0.1
    assert frobenius(prediction.depth[0], golden[f"{prefix}depth"]) <= 0.1
    assert frobenius(prediction.depth_confidence[0], golden[f"{prefix}depth_conf"]) <= 0.1
    assert frobenius(prediction.points_confidence[0], golden[f"{prefix}points_conf"]) <= 0.1
    assert frobenius(prediction.points[0], golden[f"{prefix}points"]) <= 0.2


class ForcedMemory:
    """Fast weights from the fixture; notes the gradient sums that the network would have used."""

    def __init__(self, golden):
        self.golden, self.sums = golden, {}

    def adapt(self, layer, unit, gradients):
        gradients = list(gradients)
        self.sums[layer] = sum(gradients[1:], gradients[0])
        return fixture_weights(self.golden, layer)


class NotedMemory:
    """A round of the real memory, noting the fast weights it gives out."""

    def __init__(self, newton_schulz, chunks):
        self.round, self.weights = ContextMemory(newton_schulz).round(chunks), {}

    def adapt(self, layer, unit, gradients):
        self.weights[layer] = self.round.adapt(layer, unit, gradients)
        return self.weights[layer]


def fixture_weights(golden, layer, prefix=""):
    return FastWeights(*(golden[f"{prefix}ttt.layer{layer}.w{n}_updated"] for n in range(3)))


def images_of(golden, index=None):
    images = golden["images_u8"]
    return images[None] if index is None else images[index.long()][None]


def chunks_of(golden):
    return [
        images_of(golden, golden[f"chunk{c}.frame_index"])
        for c in golden.numbers(r"chunk(\d+)\.frame_index")
    ]


def load_memory_unit():
    """Fixture file, the unit with its parameters, and by chunk tokens and rotary tables."""
    golden = load("amu")
    special = golden.setting("num_special")
    sizes = replace(
        Architecture(),
        embed_dim=golden.setting("dim"),
        num_register_tokens=special - 1,
        num_heads=1,
        vit_num_heads=1,
        camera_num_heads=1,
        ttt_inter_multi=golden.setting("inter_multi"),
        ttt_base_lr=golden.setting("base_lr"),
    )
    unit = MemoryUnit(sizes).requires_grad_(False)
    state = {k.removeprefix("param."): v for k, v in golden.tensors.items() if "param." in k}
    unit.load_state_dict(state, strict=True)
    chunks = {}
    for c in golden.numbers(r"chunk(\d+)\.x"):
        positions = golden[f"chunk{c}.positions"][0, special:]
        table = rotary_table(positions, sizes.embed_dim, sizes.rope_base)
        frames = len(golden[f"chunk{c}.x"])
        whole = Rotary(table.cos.repeat(frames, 1), table.sin.repeat(frames, 1))
        chunks[c] = golden[f"chunk{c}.x"][None], table, whole
    return golden, unit, chunks
