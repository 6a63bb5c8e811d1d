"""From configuration to a reconstructor, and what suits it by default."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scal3r_ros.config import Config
from scal3r_ros.reconstruct.choice import choose, resolved
from scal3r_ros.reconstruct.interface import Reconstructor, round_of_at_least
from scal3r_ros.reconstruct.sfm.features import FeatureKind
from scal3r_ros.reconstruct.signal_handlers import kept_signal_handlers

log = logging.getLogger(__name__)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "scal3r": {},
    "loger": {"chunk.size": 32, "chunk.overlap": 3, "memory.reset_every": 5, "loop.window": 16},
    "loger-star": {"chunk.size": 64, "chunk.overlap": 3, "memory.reset_every": 5},
    "mem3r": {"chunk.size": 20, "chunk.overlap": 4, "memory.reset_every": 5},
    "sfm": {
        "chunk.size": 20,
        "chunk.overlap": 6,
        "map.confidence_ratio": 0.0,
        "map.voxel_ratio": 0.005,
        "loop.threshold": 0.25,
        "loop.min_gap": 30,
        "loop.window": 10,
        "loop.nms_window": 10,
    },
}
"""Options that differ from the general defaults because of how a reconstructor works."""

EMBEDDED_PRESET: Mapping[str, Any] = {
    "chunk.size": 8,
    "chunk.overlap": 3,
    "alignment.estimator": "poses",
    "alignment.huber_delta": 0.3,
    "alignment.max_residual": 0.3,
    "loop.threshold": 0.7,
    "loop.min_gap": 30,
    "loop.nms_window": 4,
}
"""The same for the network that is embedded in the package: the chunks that it was trained on, what
its depth is off by, and loops that look alike enough for a geometry that proves little. Chosen on
worlds of the validation seeds."""


EMBEDDED_LIMITS = (
    "the embedded network is a demonstration whose poses are rough (see MODEL_CARD.md); "
    "for a usable map take model.reconstructor sfm, or name the official weights in "
    "model.checkpoint (scal3r download)"
)


LOGER = ("loger", "loger-star")
SEQUENTIAL = (*LOGER, "mem3r")
"""Networks whose memory goes from one chunk to the next instead of being a sum over chunks."""
_SUMS = ("memory.decay", "memory.window", "memory.loop_contributes")


@dataclass(frozen=True)
class Unused:
    """Options that a reconstructor does not look at: sections, or single ones by dotted name."""

    refused: tuple[str, ...] = ()
    """With another value the result would not be what was asked for."""
    reported: tuple[str, ...] = ()
    """They have no effect."""


UNUSED: Mapping[str, Unused] = {
    "scal3r": Unused(refused=("memory.reset_every",), reported=("sfm", "model.devices")),
    **dict.fromkeys(LOGER, Unused(refused=_SUMS, reported=("sfm", "distributed"))),
    "mem3r": Unused(
        refused=(*_SUMS, "model.point_head"), reported=("sfm", "distributed", "model.devices")
    ),
    "sfm": Unused(refused=("memory", "model.point_head"), reported=("model",)),
}


class MissingLibrary(RuntimeError):
    """A library that the chosen reconstructor needs is not installed."""


def open_reconstructor(config: Config, folder: Path | None = None) -> Reconstructor:
    """Build the configured reconstructor; raises `MissingLibrary` or what its files are wrong
    with."""
    log.info("reconstructor %s", choose(config).reason)
    config = resolved(config)
    name = config.model.reconstructor
    if refused := changed_options(config, UNUSED[name].refused):
        raise ValueError(
            f"{', '.join(refused)}: reconstructor {name} has nothing that this could change; leave "
            f"it out, or choose another model.reconstructor"
        )
    if name == "sfm":
        return _open_sfm(config)
    if config.model.refine == "bundle" and config.memory.mode == "finalize":
        raise ValueError(
            "model.refine bundle looks at the images of a chunk, which memory.mode finalize does "
            "not have at the end; take memory.mode stream or batch, or model.refine none"
        )
    network = _open_network(config, folder)
    return _refined(config, network) if config.model.refine == "bundle" else network


def preset_options(reconstructor: str, checkpoint: str) -> Mapping[str, Any]:
    """Defaults that suit a reconstructor, by dotted name; what the user sets counts before them."""
    if reconstructor == "scal3r" and not checkpoint:
        return EMBEDDED_PRESET
    return PRESETS.get(reconstructor, {})


def preset_for(config: Config) -> Mapping[str, Any]:
    """The same for the reconstructor that these options ask for."""
    choice = choose(config)
    return preset_options(choice.reconstructor, choice.checkpoint)


def known_limits(config: Config) -> str:
    """What a user must know before trusting the result; empty if there is nothing."""
    config = resolved(config)
    name = config.model.reconstructor
    embedded = name == "scal3r" and not config.model.checkpoint
    limits = [EMBEDDED_LIMITS] if embedded else []
    reported = UNUSED[name].reported
    if config.model.refine == "bundle":  # takes its features from there
        reported = tuple(section for section in reported if section != "sfm")
    if idle := changed_options(config, reported):
        limits.append(f"reconstructor {name} does not use {', '.join(idle)}")
    return "; ".join(limits)


def changed_options(config: Config, names: Sequence[str]) -> list[str]:
    """Options below `names` that are not at their default, as `name value`; what chooses the
    reconstructor is left out."""
    changed = []
    default = Config()
    for name in names:
        section, _, single = name.partition(".")
        for option in [single] if single else vars(getattr(default, section)):
            value = getattr(getattr(config, section), option)
            if option != "reconstructor" and value != getattr(getattr(default, section), option):
                changed.append(f"{section}.{option} {value}")
    return changed


def check_processes(reconstructor: str, asked: str) -> None:
    """Refuse several processes for one memory that they cannot share; `asked` names what asks for
    them."""
    if reconstructor in SEQUENTIAL:
        raise ValueError(
            f"{asked} wants several processes to share one memory, but that of {reconstructor} "
            f"goes from one chunk to the next, so they would only wait for each other; leave it "
            f"out and spread the network over GPUs with model.devices"
        )


def _open_sfm(config: Config) -> Reconstructor:
    _require_pycolmap("reconstructor sfm")
    from scal3r_ros.reconstruct.sfm.reconstructor import SfmReconstructor

    return SfmReconstructor(config.sfm, open_features(config.sfm.features))


def _require_pycolmap(asked: str) -> None:
    try:
        with kept_signal_handlers():
            import pycolmap  # noqa: F401
    except ImportError as error:
        advice = f"{asked} needs the library pycolmap: pip install pycolmap"
        raise _missing("pycolmap", advice, error) from error


def open_features(wanted: str) -> FeatureKind:
    """`sift`, `xfeat`, `both`, or the best of what is installed for `auto`; raises
    `MissingLibrary`."""
    from scal3r_ros.reconstruct.sfm.sift import Sift

    if wanted == "sift":
        return Sift()
    try:
        return _learned_features(alone=wanted == "xfeat")
    except MissingLibrary as missing:
        if wanted != "auto":
            raise
        log.warning("sfm uses SIFT, which fails on weak texture and wide steps: %s", missing)
    return Sift()


def _learned_features(alone: bool) -> FeatureKind:
    try:
        from scal3r_ros.networks.xfeat import WeightsMissing
        from scal3r_ros.reconstruct.sfm.both import BothFeatures
        from scal3r_ros.reconstruct.sfm.learned import LearnedFeatures
    except ImportError as error:
        advice = "sfm.features xfeat needs the library torch: pip install torch (docs/install.md)"
        raise _missing("torch", advice, error) from error
    try:
        return LearnedFeatures() if alone else BothFeatures()
    except WeightsMissing as missing:
        raise MissingLibrary(f"{missing}; or use sfm.features sift") from missing


def _refined(config: Config, network: Reconstructor) -> Reconstructor:
    _require_pycolmap("model.refine bundle")
    from scal3r_ros.reconstruct.refine.reconstructor import RefinedReconstructor

    kind = open_features(config.sfm.features)
    return RefinedReconstructor(network, kind, config.sfm.max_features, config.sfm.seed)


def _open_loger(config: Config) -> Reconstructor:
    _require_torch(config.model.reconstructor)
    from scal3r_ros.reconstruct.loger.setup import open_loger

    return open_loger(config.model, config.memory, config.chunk)


def _open_network(config: Config, folder: Path | None) -> Reconstructor:
    if config.model.reconstructor == "mem3r":
        return _open_mem3r(config)
    if config.model.reconstructor in LOGER:
        return _open_loger(config)
    return _open_scal3r(config, folder)


def _open_mem3r(config: Config) -> Reconstructor:
    _require_torch("mem3r")
    from scal3r_ros.reconstruct.mem3r.setup import open_mem3r

    return open_mem3r(config.model, config.memory, config.chunk)


def _require_torch(reconstructor: str) -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise _missing(
            "torch",
            f"reconstructor {reconstructor} needs the library torch: pip install torch "
            f"(docs/install.md), or use --reconstructor sfm, which needs pycolmap only",
            error,
        ) from error


def _missing(library: str, advice: str, error: ImportError) -> MissingLibrary:
    """What is installed and cannot be loaded, for lack of memory say, needs other advice."""
    if importlib.util.find_spec(library) is None:
        return MissingLibrary(advice)
    return MissingLibrary(
        f"{library} is installed but cannot be loaded: {error}; if memory is short, free some or "
        f"raise the limit (ulimit -v), else install {library} again"
    )


def _open_scal3r(config: Config, folder: Path | None) -> Reconstructor:
    _require_torch("scal3r")
    from scal3r_ros.reconstruct.scal3r.setup import open_scal3r

    reconstructor = open_scal3r(config.model, config.memory, folder)
    wanted = config.distributed.round_size
    reconstructor.round_size = round_of_at_least(reconstructor.round_size, wanted)
    return reconstructor
