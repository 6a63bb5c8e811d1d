"""Every option of the system, one section per stage, checked on construction.

The same file serves the node and the command line: `load` reads plain YAML or a ROS parameter
file. ROS parameters and
`docs/parameters.md` are made from these declarations, so an option is described here and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scal3r_ros.options import Section, from_dict, option


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
class ModelConfig(Section):
    """The network and how it is run."""

    reconstructor: str = option(
        "scal3r", "What turns chunks into geometry.", choices=("scal3r", "sfm")
    )
    checkpoint: str = option(
        "",
        "Weights, a .pt or .safetensors file; empty uses the small model shipped with the package.",
    )
    sha256: str = option("", "Expected checksum of the checkpoint; empty skips the check.")
    allow_download: bool = option(
        False, "Fetch the official checkpoint when `checkpoint` names it and it is absent."
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N; auto takes a GPU when there is one.")
    precision: str = option(
        "auto",
        "Number format of encoder and aggregator; auto is bfloat16 on GPUs that have it. Memory"
        " and heads stay float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    newton_schulz: str = option(
        "float32",
        "Number format of the memory's orthogonalisation. bfloat16 is the published one but "
        "amplifies rounding: two runs "
        "then differ by per cents.",
        choices=("float32", "bfloat16"),
    )
    image_size: int = option(
        0,
        "Width to which images are scaled; 0 takes the checkpoint's own (518 for the official "
        "one).",
        unit="px",
        minimum=0,
    )
    token_slice: int = option(
        16384, "Tokens handled at once inside a memory unit; bounds its peak memory.", minimum=64
    )
    head_batch: int = option(8, "Frames decoded at once by the dense heads.", minimum=1)
    point_head: bool = option(False, "Also run the point head and align chunks with its points.")
    threads: int = option(
        0, "CPU threads of the network; 0 leaves the library's choice.", minimum=0
    )


@dataclass(frozen=True)
class MemoryConfig(Section):
    """The network's memory over chunks."""

    mode: str = option(
        "stream",
        "stream: causal, one live chunk. batch: all chunks layer by layer, as published "
        "(offline). finalize: stream, then "
        "recompute behind the first memory unit, equal to batch. off and local (own chunk only)"
        " are for comparison.",
        choices=("stream", "batch", "finalize", "off", "local"),
    )
    decay: float = option(
        1.0,
        "Factor on the accumulated gradient per new chunk; 1 never forgets.",
        minimum=0.0,
        maximum=1.0,
    )
    window: int = option(
        0, "Forget chunks older than about this many; 0 never does.", unit="chunks", minimum=0
    )
    loop_contributes: bool = option(
        False, "Whether loop chunks are absorbed too, as in the published offline algorithm."
    )


@dataclass(frozen=True)
class AlignmentConfig(Section):
    """Sim(3) between neighbouring chunks and its quality gate."""

    compat: bool = option(
        False, "Use the published constants: float32, absolute Huber delta, every pixel, no gate."
    )
    huber_delta: float = option(
        0.1,
        "Residual below which a match is an inlier, relative to the typical scene distance of the "
        "chunk; with compat Huber's threshold in chunk units.",
        minimum=0.0,
    )
    iterations: int = option(
        5,
        "Rounds of iterative reweighting; twice as many without compat, where outliers get no"
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

    compat: bool = option(
        False, "The published recipe: additive update, free gauge, no robust kernel."
    )
    max_iterations: int = option(30, "Levenberg-Marquardt iterations.", minimum=1)
    loop_kernel: float = option(
        10.0,
        "Width of the robust kernel on loop residuals, in standard deviations; 0 switches it off.",
        minimum=0.0,
    )


@dataclass(frozen=True)
class MapConfig(Section):
    """The accumulated point map."""

    voxel_size: float = option(
        0.0,
        "Edge of a map voxel in map units; 0 chooses it from the first chunk's depth.",
        minimum=0.0,
    )
    voxel_ratio: float = option(
        0.01,
        "With voxel_size 0: voxel edge relative to the median depth.",
        minimum=1e-4,
        maximum=1.0,
    )
    confidence_ratio: float = option(
        0.75, "Keep pixels with confidence above this share of their frame's mean.", minimum=0.0
    )
    max_range: float = option(
        0.0, "Ignore depth beyond this multiple of the frame's median; 0 keeps all.", minimum=0.0
    )
    submap_chunks: int = option(
        4, "Chunks per submap, which moves as one in a correction.", minimum=1
    )
    max_megabytes: float = option(
        512.0, "Budget of the points in memory; beyond it voxels grow.", unit="MB", minimum=1.0
    )
    alignment: str = option(
        "first_camera",
        "How the map frame gets its z-up axes. first_camera: level first camera assumed. floor:"
        " fitted ground plane. "
        "imu: gravity from the IMU. none: first camera's optical axes.",
        choices=("first_camera", "floor", "imu", "none"),
    )


@dataclass(frozen=True)
class ScaleConfig(Section):
    """Where metres come from; monocular images alone do not tell."""

    source: str = option(
        "none",
        "none: map units, reported as unknown. Others give metres.",
        choices=("none", "odometry", "camera_height", "known_distance", "depth"),
    )
    camera_height: float = option(
        1.0,
        "Height of the camera above the floor, for source camera_height.",
        unit="m",
        minimum=0.01,
    )
    known_distance: float = option(
        1.0,
        "Path length between the first frame and known_frame, for source known_distance.",
        unit="m",
        minimum=0.0,
    )
    known_frame: int = option(0, "Frame id that ends the known distance.", minimum=0)
    max_relative_sigma: float = option(
        0.1, "Freeze the estimate once its relative standard deviation is below this.", minimum=0.0
    )


@dataclass(frozen=True)
class SfmConfig(Section):
    """Structure from motion by pycolmap, the reconstructor that needs no weights."""

    max_features: int = option(2048, "SIFT features per image.", minimum=64)
    min_registered: float = option(
        0.5, "Smallest share of a chunk's frames that must be registered.", minimum=0.0, maximum=1.0
    )
    max_error: float = option(
        4.0, "Reprojection error above which an observation is an outlier.", unit="px", minimum=0.1
    )
    seed: int = option(0, "Seed of the library's random sampling.", minimum=0)


@dataclass(frozen=True)
class DistributedConfig(Section):
    """Several processes that share one memory. Every wait has its bound here."""

    policy: str = option(
        "lockstep",
        "lockstep: chunks of a round see each other, rounds are numbered and committed. async: no "
        "barrier, gradients are merged when they arrive.",
        choices=("lockstep", "async"),
    )
    round_size: int = option(
        0,
        "Chunks of a lockstep round; 0 takes one per process. The result depends on it, not on the "
        "number of processes.",
        unit="chunks",
        minimum=0,
    )
    backend: str = option(
        "auto",
        "Transport of tensors; auto takes nccl between GPUs and gloo between CPUs.",
        choices=("auto", "gloo", "nccl"),
    )
    wire: str = option(
        "float32",
        "Number format of gradients on the wire; bfloat16 halves the traffic and rounds the sum.",
        choices=("float32", "bfloat16"),
    )
    address: str = option(
        "127.0.0.1",
        "Address of the host of context_sync_node that all workers reach; the default keeps "
        "everything on one machine.",
    )
    port: int = option(
        0, "Port of the rendezvous; 0 takes a free one and announces it.", minimum=0, maximum=65535
    )
    interface: str = option(
        "", "Network interface of gloo, such as eth0; empty chooses by the address."
    )
    collective_timeout: float = option(
        60.0,
        "Longest wait in one collective. It has to cover how much longer one worker may need for "
        "its chunk than another.",
        unit="s",
        minimum=0.1,
    )
    connect_timeout: float = option(
        60.0,
        "Longest wait for all members of a new group; it has to cover a round that one of them "
        "still finishes.",
        unit="s",
        minimum=0.1,
    )
    store_timeout: float = option(
        10.0, "Longest wait for an answer of the rendezvous store.", unit="s", minimum=0.1
    )
    heartbeat_period: float = option(
        0.5, "Time between two signs of life of a worker.", unit="s", minimum=0.01
    )
    heartbeat_timeout: float = option(
        5.0, "A worker silent for longer is dropped.", unit="s", minimum=0.1
    )
    settle_time: float = option(
        1.0, "Wait for more workers after one has come or gone.", unit="s", minimum=0.0
    )
    round_timeout: float = option(
        300.0,
        "A worker that computes longer on a round is taken to hang and is dropped.",
        unit="s",
        minimum=0.1,
    )
    ready_timeout: float = option(
        120.0,
        "Longest wait of mapping_node for a complete group, and for one message to get through.",
        unit="s",
        minimum=0.1,
    )
    service_timeout: float = option(
        30.0, "Longest wait to save, load or reset the memory.", unit="s", minimum=0.1
    )
    command_timeout: float = option(
        3600.0,
        "Under torchrun: how long processes wait for the first one to read, map and write.",
        unit="s",
        minimum=0.1,
    )
    max_attempts: int = option(
        8, "A round that fails this often is given up and reported.", minimum=1
    )
    snapshot_path: str = option(
        "", "File for the committed memory; empty keeps snapshots in memory only."
    )
    snapshot_every: int = option(
        10, "Rounds between two automatic snapshots; 0 takes none.", unit="rounds", minimum=0
    )

    def check(self) -> None:
        if self.heartbeat_period >= self.heartbeat_timeout:
            raise ValueError(
                f"distributed.heartbeat_period ({self.heartbeat_period:g} s) must be smaller than "
                f"distributed.heartbeat_timeout ({self.heartbeat_timeout:g} s)"
            )


@dataclass(frozen=True)
class Config(Section):
    """All sections of the mapping method. The node adds its own (see `nodes/node_config.py`)."""

    gate: GateConfig = field(default_factory=GateConfig)
    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    map: MapConfig = field(default_factory=MapConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    sfm: SfmConfig = field(default_factory=SfmConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)


def load(path: str | Path, cls: type[Section] = Config) -> Any:
    """Read a YAML file (plain, or a ROS parameter file with one `ros__parameters` block) into
    `cls`."""
    return from_dict(cls, read_options(path, cls))


def read_options(path: str | Path, cls: type[Section] = Config) -> Mapping[str, Any]:
    """The options that such a file sets, not yet checked."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read options from {path}: {error}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: expected a mapping of options, found {type(values).__name__}")
    while (
        len(values) == 1
        and isinstance(next(iter(values.values())), Mapping)
        and not hasattr(cls(), next(iter(values)))
    ):
        values = next(iter(values.values()))
    return values
