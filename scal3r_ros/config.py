"""Every option of the system, one section per stage, checked on construction.

The same file serves the node and the command line: `load` reads plain YAML or a ROS parameter
file. ROS parameters and `docs/parameters.md` are made from these declarations (those of
`config_reconstruction.py`, `config_map.py` and `config_localisation.py` included), so an option is
described there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scal3r_ros.config_localisation import LocalisationConfig
from scal3r_ros.config_map import GridConfig, MapConfig, ScaleConfig
from scal3r_ros.config_reconstruction import (
    DistributedConfig,
    MemoryConfig,
    ModelConfig,
    SfmConfig,
)
from scal3r_ros.options import Section, from_dict, option
from scal3r_ros.texts import BadText, read_yaml


@dataclass(frozen=True)
class InputConfig(Section):
    """Which images are taken."""

    max_pixels: int = option(
        120_000_000,
        "Images that declare more pixels are refused before they are decoded.",
        unit="px",
        minimum=1,
    )
    max_bad: float = option(
        0.5,
        "Largest share of images that cannot be used (cut off, empty, of another size) and are "
        "left out; more end a run of the command line.",
        minimum=0.0,
        maximum=1.0,
    )


@dataclass(frozen=True)
class GateConfig(Section):
    """Which camera frames become candidates for the map."""

    stride: int = option(1, "Keep every n-th frame.", minimum=1)
    max_rate: float = option(
        0.0, "Upper limit of the rate of kept frames; 0 keeps all.", unit="Hz", minimum=0.0
    )
    min_parallax: float = option(
        0.0,
        "Median image motion since the last kept frame, as a share of the image width, below "
        "which a frame adds nothing; "
        "0 switches the test off.",
        minimum=0.0,
        maximum=1.0,
    )
    max_interval: float = option(
        0.0,
        "With min_parallax: keep a frame after this time even without motion; 0 never does.",
        unit="s",
        minimum=0.0,
    )
    max_gap: float = option(
        5.0,
        "A longer gap between stamps starts a new sub-session; 0 never does.",
        unit="s",
        minimum=0.0,
    )


@dataclass(frozen=True)
class ChunkConfig(Section):
    """How frames are grouped for the network."""

    size: int = option(60, "Frames per chunk.", minimum=2)
    overlap: int = option(30, "Frames shared by neighbouring chunks.", minimum=1)

    def check(self) -> None:
        if self.overlap >= self.size:
            raise ValueError(
                f"chunk.overlap ({self.overlap}) must be smaller than chunk.size ({self.size}); "
                f"lower chunk.overlap"
            )


@dataclass(frozen=True)
class AlignmentConfig(Section):
    """Sim(3) between neighbouring chunks and its quality gate."""

    method: str = option(
        "robust",
        "robust, with a quality gate, or vggt_long: float32, absolute Huber delta, every pixel, no "
        "gate, for comparison with its results.",
        choices=("robust", "vggt_long"),
    )
    estimator: str = option(
        "points",
        "What is fitted first: `points`, the pixels of the shared frames, or `poses`, their camera "
        "poses, with the ratio of their depths as scale. The latter suits networks whose poses are "
        "better than their depth.",
        choices=("points", "poses"),
    )
    huber_delta: float = option(
        0.1,
        "Residual below which a match is an inlier, relative to the typical scene distance of the "
        "chunk; with method vggt_long Huber's threshold in chunk units.",
        minimum=0.0,
    )
    iterations: int = option(
        5,
        "Rounds of iterative reweighting; twice as many with method robust, where outliers get no"
        " weight at all.",
        minimum=0,
    )
    max_points: int = option(
        200000, "Pixel correspondences used per overlap; 0 uses all.", minimum=0
    )
    min_inliers: float = option(
        0.35, "Smallest accepted share of residuals below delta.", minimum=0.0, maximum=1.0
    )
    max_residual: float = option(
        0.15,
        "Largest accepted weighted residual, relative to the typical scene distance.",
        minimum=0.0,
    )
    max_log_scale: float = option(
        1.5, "Largest accepted |log scale| between neighbouring chunks.", minimum=0.0
    )


@dataclass(frozen=True)
class LoopConfig(Section):
    """Recognition and verification of revisited places."""

    enabled: bool = option(True, "Look for loops.")
    threshold: float = option(
        0.5,
        "Smallest cosine similarity of two frame descriptors after subtracting the session's mean;"
        " geometry decides later.",
        minimum=-1.0,
        maximum=1.0,
    )
    min_gap: int = option(
        60, "Frames closer than this are neighbours, not loops.", unit="frames", minimum=1
    )
    nms_window: int = option(
        25,
        "Frames around an accepted pair in which no second pair is tried.",
        unit="frames",
        minimum=0,
    )
    window: int = option(
        20, "Frames taken around each end of a pair for the loop chunk.", unit="frames", minimum=2
    )
    max_candidates: int = option(
        2, "Loop chunks tried per new chunk; bounds the extra load.", minimum=0
    )
    answers: int = option(
        2, "Places that one frame may look like; each is a candidate.", unit="places", minimum=1
    )
    anchor_search: int = option(
        1,
        "Other placements tried around a pair whose loop chunk did not fit, those that look most "
        "alike first; each costs a pass of the network.",
        minimum=0,
    )
    min_overlap: float = option(
        0.1,
        "Smallest share of one place's points that must lie where the other has some, inside the "
        "loop chunk.",
        minimum=0.0,
        maximum=1.0,
    )
    max_sigmas: float = option(
        10.0,
        "Largest correction, in standard deviations as this run's own edges tell them; times the "
        "median of those accepted so far, if that is more than one.",
        minimum=0.0,
    )
    max_megabytes: float = option(
        4096.0,
        "Disk space for images and depth of past chunks, which loops need; beyond it the oldest "
        "chunks are dropped, and with them all loops to there.",
        unit="MB",
        minimum=0.01,
    )
    max_scale_change: float = option(
        1.5, "Largest scale factor that a loop may imply.", minimum=1.0
    )
    max_drift: float = option(
        0.1,
        "Largest correction accepted, as a share of the path since the revisited place.",
        minimum=0.0,
    )


@dataclass(frozen=True)
class GraphConfig(Section):
    """Sim(3) pose graph."""

    method: str = option(
        "robust",
        "robust, or vggt_long: additive update, free gauge, no robust kernel, for comparison with "
        "its results.",
        choices=("robust", "vggt_long"),
    )
    max_iterations: int = option(30, "Levenberg-Marquardt iterations.", minimum=1)
    loop_kernel: float = option(
        10.0,
        "Width of the robust kernel on loop residuals, in standard deviations; 0 switches it off.",
        minimum=0.0,
    )
    solve_above: float = option(
        3.0,
        "A loop that contradicts the map by more standard deviations than this corrects it at"
        " once; 0 lets every loop do so.",
        minimum=0.0,
    )
    span_edges: bool = option(
        True,
        "Align each chunk also with the last but one, where chunk.overlap is more than half of "
        "chunk.size, so that they share frames.",
    )
    solve_every: int = option(
        10, "Longest wait of any other loop for its correction.", unit="chunks", minimum=1
    )


@dataclass(frozen=True)
class LongContextConfig(Section):
    """Windows of frames picked evenly over many chunks: edges with less drift than the chain's."""

    every: int = option(
        0,
        "Chunks from one window to the next; each costs one more pass of the network. 0: none.",
        unit="chunks",
        minimum=0,
    )
    span: int = option(8, "Chunks that a window reaches back.", unit="chunks", minimum=4)
    views: int = option(48, "Frames in a window.", unit="frames", minimum=4)
    min_confidence: float = option(
        0.7,
        "Smallest accepted confidence of a window, as a share of that of the chunks it spans.",
        minimum=0.0,
    )
    max_residual: float = option(
        0.15,
        "Largest accepted residual of a window against a chunk, relative to the scene distance.",
        minimum=0.0,
    )


@dataclass(frozen=True)
class Config(Section):
    """All sections of the mapping method; the node adds its own (`nodes/base/node_config.py`)."""

    input: InputConfig = field(default_factory=InputConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    localisation: LocalisationConfig = field(default_factory=LocalisationConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    long_context: LongContextConfig = field(default_factory=LongContextConfig)
    map: MapConfig = field(default_factory=MapConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    sfm: SfmConfig = field(default_factory=SfmConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)


def load(path: str | Path, cls: type[Section] = Config) -> Any:
    """Read a YAML file (plain, or a ROS parameter file with one `ros__parameters` block) into
    `cls`."""
    return from_dict(cls, read_options(path, cls))


def read_options(path: str | Path, cls: type[Section] = Config) -> Mapping[str, Any]:
    """The options that such a file sets, not yet checked."""
    try:
        values = read_yaml(Path(path)) or {}
    except BadText as error:
        raise ValueError(f"options: {error}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: expected a mapping of options, found {type(values).__name__}")
    while (
        len(values) == 1
        and isinstance(next(iter(values.values())), Mapping)
        and not hasattr(cls(), next(iter(values)))
    ):
        values = next(iter(values.values()))
    return values
