"""Reference outputs on disk: where they are, how they are read, how they are compared."""

import json
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from golden_files import Golden, frobenius, scaled
from safetensors import safe_open
from torch import Tensor

from scal3r_ros.networks.fast_weights import FastWeights
from scal3r_ros.networks.loger.architecture import Architecture, Numerics
from scal3r_ros.networks.loger.network import LoGeR, Prediction
from scal3r_ros.networks.loger.state import WindowState

FOLDER = Path(os.environ.get("LOGER_GOLDEN_DIR", Path(__file__).resolve().parent / "golden"))
TOLERANCES = json.loads((FOLDER / "tolerances.json").read_text())


@cache
def load(name: str) -> Golden:
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as stream:
        tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
        return Golden(tensors, stream.metadata() or {})


def names(pattern: str) -> list[str]:
    """Fixture files whose name matches."""
    found = [path.name.removesuffix(".safetensors") for path in FOLDER.glob("*.safetensors")]
    return sorted(name for name in found if re.search(pattern, name))


def check(name: str, found: dict[str, Tensor], rules: str = "rules", inputs: str = "inputs"):
    """Compare every tensor of the file that is no input by the first rule that fits it."""
    golden = load(name)
    given = TOLERANCES["inputs"] + (TOLERANCES["inputs_merge"] if inputs == "merge" else [])
    expected = {
        key for key in golden.tensors if not any(re.search(pattern, key) for pattern in given)
    }
    assert found.keys() == expected, found.keys() ^ expected
    for key in sorted(expected):
        compare(name, key, found[key], rules)


def compare(name: str, key: str, found: Tensor, rules: str = "rules") -> None:
    metric, limit = next(
        (metric, limit)
        for file, tensor, metric, limit in TOLERANCES[rules]
        if re.search(file, name) and re.search(tensor, key)
    )
    expected = load(name)[key]
    if metric == "exact":
        assert torch.equal(found, expected), key
        return
    error = {"scaled": scaled, "relf": frobenius}[metric](found.float(), expected)
    assert error <= limit, f"{name} {key}: {metric} {error:.2e} > {limit:.0e}"


def architecture(variant: str = "LoGeR") -> Architecture:
    built = Architecture.from_json((FOLDER / "model_config.json").read_text())
    if variant == "LoGeR":
        return built
    assert variant == "LoGeR_star"
    return replace(built, ttt_pre_norm=False, se3=True)


def weights(variant: str = "LoGeR", factors=()) -> dict[str, Tensor]:
    state = {key: value.float() for key, value in load("model_weights").tensors.items()}
    if variant == "LoGeR_star":
        state = {k: v for k, v in state.items() if not k.endswith("pre_norm.weight")}
    for pattern, factor in factors:
        state |= {key: value * factor for key, value in state.items() if re.search(pattern, key)}
    return state


def network_for(golden: Golden, newton_schulz: str = "float32", factors=()) -> LoGeR:
    variant = golden.metadata["variant"]
    network = LoGeR(architecture(variant), Numerics(newton_schulz=newton_schulz))
    network.load_state_dict(weights(variant, factors), strict=True)
    return network.eval().requires_grad_(False)


class Run:
    """A window passed through the network, with everything it has seen on the way by the fixture's
    names."""

    def __init__(self, network: LoGeR, images: Tensor, sizes: tuple[int, int], before: WindowState):
        self.network, self.before = network, before
        self.patch_tokens = network.encode(images)
        grid = network.grid(images)
        self.window = network.begin(self.patch_tokens[None], grid, *sizes, before)
        self.seen = {"encoder.patch_tokens": self.patch_tokens}
        self.seen["tokens.embed"] = self.window.tokens[0]
        self._entering: dict[int, Tensor] = {}
        network.advance(self.window, network.architecture.decoder_depth - 1, self._note)
        self._heads()

    @property
    def after(self) -> WindowState:
        return self.window.after

    def tensors(self) -> dict[str, Tensor]:
        """All but the memory's inside."""
        return self.seen | self._state()

    def gradients(self) -> dict[int, FastWeights]:
        """By memory layer, computed again from the tokens that entered it."""
        return {layer: self._gradient(layer) for layer in self._entering}

    def projections(self) -> dict[str, Tensor]:
        found = {}
        for layer, x in self._entering.items():
            memory = self.network.ttt_layers[layer]
            q, k, _ = memory.projected(x)
            names = {"q": q, "k": k, "lr": memory.rates(x)}
            found |= {f"ttt.layer{layer}.{name}": value for name, value in names.items()}
        return found

    def _note(self, name: str, tokens: Tensor) -> None:
        self.seen[f"tokens.{name}"] = tokens[0]
        block = int(re.match(r"block(\d+)", name)[1])
        self.seen[f"tokens.block{block}_end"] = tokens[0]
        after = self.network.architecture.ttt_insert_after
        if name == f"block{block}" and block in after:
            self._entering[after.index(block)] = tokens.flatten(1, 2)

    def _heads(self) -> None:
        network, window = self.network, self.window
        raw = network.decode(window)
        parts = (raw.poses, raw.local_points, raw.confidence)
        self.prediction = Prediction(*(x[0] for x in parts))
        hidden = network.hidden(window)[0]
        self.seen["hidden"] = hidden
        for name in ("point", "conf", "camera"):
            decoder = getattr(network, f"{name}_decoder")
            self.seen[f"features.{name}"] = network.features(decoder, hidden, window)

    def _gradient(self, layer: int) -> FastWeights:
        memory = self.network.ttt_layers[layer]
        weights = self.before.weights.get(layer) or memory.initial()
        return memory.gradient(self._entering[layer], weights, None)

    def _state(self) -> dict[str, Tensor]:
        found = {}
        for layer, triple in self.after.weights.items():
            found |= {f"ttt.layer{layer}.w{n}_updated": w for n, w in enumerate(triple)}
        for layer, (k, v) in self.after.cache.items():
            found |= {f"swa.layer{layer}.k": k, f"swa.layer{layer}.v": v}
        return found
