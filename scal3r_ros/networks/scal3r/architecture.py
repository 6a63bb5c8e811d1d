"""Sizes of a Scal3R network, and the number formats in which it is run.

Fixed by the method and therefore no options: biases everywhere, layer-norm of queries and keys in
the aggregator, memory units behind global blocks only and with output modulation, one camera token
per frame, camera activations linear, linear and ReLU, depth as exp, points as inverse log,
confidence as 1 + exp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scal3r_ros.networks.numerics import check_formats, check_slices
from scal3r_ros.networks.stored_sizes import StoredSizes


@dataclass(frozen=True)
class Architecture(StoredSizes):
    """Everything that decides the keys and shapes of a checkpoint. Defaults are the full size."""

    image_size_of_pos_embed: int = 518
    """Side of the square image whose patch grid the stored position embedding covers, pixels."""
    encoder: str = "dinov2"
    """`dinov2`, or `xfeat`: XFeat's convolutional backbone, whose stride of 8 is the patch size."""
    patch_size: int = 14
    embed_dim: int = 1024
    """Token width C of encoder and aggregator."""
    mlp_ratio: int = 4
    vit_depth: int = 24
    vit_num_heads: int = 16
    num_register_tokens: int = 4
    """Register tokens of the encoder, and of every frame in the aggregator."""
    vit_layer_scale: float = 1.0
    """Initial value, as for the other layer scales."""
    depth: int = 24
    """Pairs of frame and global blocks."""
    num_heads: int = 16
    layer_scale: float = 0.01
    rope_base: float = 100.0
    intermediate_layers: tuple[int, ...] = (4, 11, 17, 23)
    """Layers that the dense heads read; the camera head reads the last."""
    ttt_layers: tuple[int, ...] = (14, 17, 20, 23)
    """Layers with a memory unit behind the global block."""
    ttt_num_heads: int = 1
    ttt_inter_multi: int = 4
    """Hidden width of the fast weights, relative to their input width."""
    ttt_base_lr: float = 0.01
    muon_steps: int = 5
    """Newton-Schulz iterations."""
    camera_trunk_depth: int = 4
    camera_num_heads: int = 16
    camera_layer_scale: float = 0.01
    camera_iterations: int = 4
    dense_head: str = "dpt"
    """`dpt`; `linear`: one linear layer per patch on the last collected layer; `guided`: the same
    with edges from the finer maps of the encoder `xfeat`."""
    dpt_features: int = 256
    dpt_out_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    dpt_head_hidden: int = 32
    points_head: bool = True
    """Whether the network has a point head; without it there are no `xyz_decoder` weights."""
    image_size: int = 518
    """Width in pixels to which images are scaled, unless the user asks for another."""

    def __post_init__(self) -> None:
        for name in ("intermediate_layers", "ttt_layers", "dpt_out_channels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_layers(self)
        _check_widths(self)

    @property
    def special_tokens(self) -> int:
        """Tokens in front of the patches of a frame: one camera token and the registers."""
        return 1 + self.num_register_tokens

    @property
    def pos_embed_grid(self) -> int:
        return self.image_size_of_pos_embed // self.patch_size


@dataclass(frozen=True)
class Numerics:
    """Number formats and slice sizes: they change speed, peak memory and rounding, nothing else."""

    blocks: str = "float32"
    """Format of matrix products in encoder and aggregator, `float32` or `bfloat16`. The residual
    stream, memory units and heads stay float32."""
    newton_schulz: str = "float32"
    """`bfloat16` is Scal3R's own format, but it amplifies rounding up to 500 times: two runs with
    another thread count or batch then differ by per cents. float32 is reproducible."""
    token_slice: int | None = 16384
    """Tokens handled at once in a memory unit; None handles all."""
    head_batch: int = 8
    """Frames decoded at once by the dense heads."""
    encoder_batch: int = 16
    """Frames encoded at once."""

    def __post_init__(self) -> None:
        check_formats(self, "blocks", "newton_schulz")
        check_slices(self, "token_slice", "head_batch", "encoder_batch")


def preset(name: str) -> Architecture:
    """`scal3r` (the official checkpoint's size) or `scal3r-tiny` (fit for two CPU cores).

    Weights exist for the first; a safetensors file says its own architecture, also the embedded
    one, which is smaller than the preset whose name it bears.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known are {', '.join(PRESETS)}")
    return PRESETS[name]


def _check_layers(a: Architecture) -> None:
    collected = a.intermediate_layers
    if len(collected) != 4 or list(collected) != sorted(collected) or collected[-1] != a.depth - 1:
        raise ValueError(
            f"intermediate_layers must be four rising layers ending with depth - 1 = "
            f"{a.depth - 1}, found {list(collected)}"
        )
    for layer in (*collected, *a.ttt_layers):
        if not 0 <= layer < a.depth:
            raise ValueError(f"layer {layer} does not exist in a network of depth {a.depth}")
    if list(a.ttt_layers) != sorted(set(a.ttt_layers)):
        raise ValueError(f"ttt_layers must rise, found {list(a.ttt_layers)}")


def _check_widths(a: Architecture) -> None:
    for name, width, heads, multiple in (
        ("vit_num_heads", a.embed_dim, a.vit_num_heads, 1),
        ("num_heads", a.embed_dim, a.num_heads, 4),
        ("ttt_num_heads", a.embed_dim, a.ttt_num_heads, 4),
        ("camera_num_heads", 2 * a.embed_dim, a.camera_num_heads, 1),
    ):
        if width % (heads * multiple):
            raise ValueError(
                f"{name} ({heads}) must split width {width} into heads divisible by {multiple}"
            )
    _check_kinds(a)
    if a.dense_head == "dpt" and any(c % 4 for c in (*a.dpt_out_channels, a.dpt_features // 2)):
        raise ValueError(
            f"dpt_out_channels {list(a.dpt_out_channels)} and half of dpt_features "
            f"({a.dpt_features}) must be divisible by 4"
        )
    if a.image_size_of_pos_embed % a.patch_size:
        raise ValueError(
            f"image_size_of_pos_embed ({a.image_size_of_pos_embed}) must be a multiple of "
            f"patch_size ({a.patch_size})"
        )


def _check_kinds(a: Architecture) -> None:
    if a.encoder not in ("dinov2", "xfeat"):
        raise ValueError(f"encoder must be dinov2 or xfeat, found {a.encoder!r}")
    if a.dense_head not in ("dpt", "linear", "guided"):
        raise ValueError(f"dense_head must be dpt, linear or guided, found {a.dense_head!r}")
    if a.encoder == "xfeat" and a.patch_size != 8:
        raise ValueError(f"encoder xfeat needs a patch_size of 8, found {a.patch_size}")
    if a.dense_head == "guided" and a.encoder != "xfeat":
        raise ValueError(f"dense_head guided needs the encoder xfeat, found {a.encoder!r}")


TINY = Architecture(
    image_size_of_pos_embed=224,
    patch_size=14,
    embed_dim=192,
    vit_depth=4,
    vit_num_heads=6,
    vit_layer_scale=1.0,
    depth=6,
    num_heads=6,
    layer_scale=1.0,
    intermediate_layers=(1, 2, 4, 5),
    ttt_layers=(2, 4, 5),
    camera_trunk_depth=2,
    camera_num_heads=6,
    camera_layer_scale=1.0,
    dpt_features=32,
    dpt_out_channels=(32, 48, 64, 64),
    points_head=False,
    image_size=224,
)

PRESETS: Mapping[str, Architecture] = {"scal3r": Architecture(), "scal3r-tiny": TINY}
