"""Which reconstructor `auto` stands for: official weights if there are some, else structure from
motion."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from typing import TypeVar

from scal3r_ros.config import Config
from scal3r_ros.config_reconstruction import ModelConfig
from scal3r_ros.io.download import default_path

AUTO = "auto"
AnyConfig = TypeVar("AnyConfig", bound=Config)


@dataclass(frozen=True)
class Choice:
    """A reconstructor by name."""

    reconstructor: str
    checkpoint: str
    reason: str
    """One line for people: what was chosen, and why."""


def choose(config: Config) -> Choice:
    """What is used with these options on this machine."""
    model = config.model
    if model.reconstructor != AUTO:
        return Choice(model.reconstructor, model.checkpoint, f"{model.reconstructor}, as set")
    if model.checkpoint:
        return Choice("scal3r", model.checkpoint, "scal3r: model.checkpoint names weights")
    fetched = default_path()
    if fetched.is_file():
        reason = f"scal3r: its official weights have been downloaded to {fetched}"
        return Choice("scal3r", str(fetched), reason)
    embedded = "scal3r with the small embedded network, as there are no other weights (scal3r "
    embedded += "download)"
    if need := _needs_a_network(config):
        return Choice("scal3r", "", f"{embedded} and {need} needs a network")
    if importlib.util.find_spec("pycolmap") is None:
        return Choice("scal3r", "", f"{embedded} and pycolmap is not installed (pip install it)")
    reason = "sfm: there are no weights of a network (scal3r download), and pycolmap is installed"
    return Choice("sfm", "", reason)


def resolved(config: AnyConfig) -> AnyConfig:
    """The same options with the reconstructor named that `auto` stands for."""
    choice = choose(config)
    model = replace(config.model, reconstructor=choice.reconstructor, checkpoint=choice.checkpoint)
    return replace(config, model=model)


def _needs_a_network(config: Config) -> str:
    """The option that asks for what structure from motion has not; empty if there is none."""
    if config.memory.mode != "stream":
        return f"memory.mode {config.memory.mode}"
    if config.model.point_head:
        return "model.point_head"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "torchrun"
    worker = getattr(config, "worker", None)  # the node's own section
    return "worker.count" if worker is not None and worker.count > 0 else ""


def network_model(model: ModelConfig) -> ModelConfig:
    """The same options for where only a network with a memory to share will do."""
    choice = choose(Config(model=model))
    if model.reconstructor != AUTO:
        return model
    checkpoint = choice.checkpoint if choice.reconstructor == "scal3r" else ""
    return replace(model, reconstructor="scal3r", checkpoint=checkpoint)
