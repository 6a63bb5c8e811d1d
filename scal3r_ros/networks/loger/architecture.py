"""Sizes of a LoGeR network, and the number formats in which it is run.

Fixed by the method and therefore no options: layer norm of queries and keys in the decoder and in
window attention, biases everywhere but in the memory's projections, two residual blocks in the
camera head, points as (x z, y z, z) with z = exp, confidence as a logit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from scal3r_ros.networks.feature_encoder import PATCH as XFEAT_PATCH
from scal3r_ros.networks.numerics import check_formats, check_slices
from scal3r_ros.networks.stored_sizes import StoredSizes


@dataclass(frozen=True)
class Architecture(StoredSizes):
    """Everything that decides the keys and shapes of a checkpoint. Defaults are LoGeR's."""

    encoder: str = "dinov2"
    """What turns a frame into patch tokens: `dinov2`, or `xfeat`, convolutions for small
    networks."""
    pos_embed_image_size: int = 518
    """Side of the square image whose patch grid the stored position embedding covers, pixels."""
    patch_size: int = 14
    embed_dim: int = 1024
    """Token width C of encoder and decoder."""
    encoder_depth: int = 24
    encoder_num_heads: int = 16
    encoder_register_tokens: int = 4
    decoder_depth: int = 36
    """Blocks: even ones attend inside a frame, odd ones over the window."""
    decoder_num_heads: int = 16
    mlp_ratio: int = 4
    layer_scale: float = 0.01
    """Initial factor on the residual branches of the decoder."""
    num_register_tokens: int = 5
    """Register tokens that the decoder gives to every frame."""
    rope_base: float = 100.0
    ttt_insert_after: tuple[int, ...] = tuple(range(0, 36, 2))
    """Decoder blocks, even ones, followed by a layer of fast weights."""
    attn_insert_after: tuple[int, ...] = (10, 18, 26, 34)
    """Decoder blocks, even ones, followed by attention to the window before."""
    ttt_head_dim: int = 512
    ttt_inter_multi: int = 4
    """Hidden width of the fast weights and of window attention's MLP, relative to their input."""
    ttt_pre_norm: bool = True
    """Whether the memory normalises the tokens it reads; LoGeR does, LoGeR* does not."""
    ttt_base_lr: float = 0.01
    muon_steps: int = 5
    """Newton-Schulz iterations."""
    head_embed_dim: int = 1024
    """Width of the three head decoders, and of what the point and confidence heads read."""
    head_num_heads: int = 16
    head_depth: int = 5
    camera_dim: int = 512
    se3: bool = False
    """Whether a window is placed by the pose of a frame it shares (LoGeR*)."""
    pixel_limit: int = 255_000
    """Pixels of an image at most; images are scaled to have about as many."""

    def __post_init__(self) -> None:
        for name in ("ttt_insert_after", "attn_insert_after"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_layers(self)
        _check_widths(self)

    @property
    def special_tokens(self) -> int:
        """Tokens in front of the patches of a frame: the registers and one window token."""
        return self.num_register_tokens + 1

    @property
    def pos_embed_grid(self) -> int:
        return self.pos_embed_image_size // self.patch_size

    @property
    def variant(self) -> str:
        """What a user calls the network: `loger`, or `loger-star` without pre-norm."""
        return "loger" if self.ttt_pre_norm else "loger-star"


@dataclass(frozen=True)
class Numerics:
    """Number formats and slice sizes: they change speed, peak memory and rounding, nothing else."""

    blocks: str = "float32"
    """Format of matrix products in encoder, decoder, memory and head decoders, `float32` or
    `bfloat16`. The residual stream, norms, rates, fast weights and the last layers of the heads
    stay float32."""
    newton_schulz: str = "float32"
    """`bfloat16` is the released format, but it has no canonical result: compiled and eager code of
    the release differ by 3 to 4 %, as much as either differs from float32. float32 is
    reproducible."""
    token_slice: int | None = 16384
    """Tokens handled at once in a memory layer; None handles all."""
    head_batch: int = 8
    """Frames decoded at once by the heads."""
    encoder_batch: int = 16
    """Frames encoded at once."""

    def __post_init__(self) -> None:
        check_formats(self, "blocks", "newton_schulz")
        check_slices(self, "token_slice", "head_batch", "encoder_batch")


def _check_layers(a: Architecture) -> None:
    if a.decoder_depth < 2 or a.decoder_depth % 2:
        raise ValueError(f"decoder_depth must be even and at least 2, found {a.decoder_depth}")
    for name in ("ttt_insert_after", "attn_insert_after"):
        blocks = getattr(a, name)
        if list(blocks) != sorted(set(blocks)):
            raise ValueError(f"{name} must rise, found {list(blocks)}")
        wrong = [block for block in blocks if block % 2 or not 0 <= block < a.decoder_depth]
        if wrong:
            raise ValueError(
                f"{name} must name even decoder blocks below {a.decoder_depth}, found {wrong}"
            )


def _check_widths(a: Architecture) -> None:
    for name, width, heads, multiple in (
        ("encoder_num_heads", a.embed_dim, a.encoder_num_heads, 1),
        ("decoder_num_heads", a.embed_dim, a.decoder_num_heads, 4),
        ("head_num_heads", a.head_embed_dim, a.head_num_heads, 4),
    ):
        if width % (heads * multiple):
            raise ValueError(
                f"{name} ({heads}) must split width {width} into heads divisible by {multiple}"
            )
    if a.embed_dim % a.ttt_head_dim:
        raise ValueError(f"ttt_head_dim ({a.ttt_head_dim}) must divide embed_dim ({a.embed_dim})")
    if a.encoder not in ("dinov2", "xfeat"):
        raise ValueError(f"encoder must be dinov2 or xfeat, found {a.encoder!r}")
    if a.encoder == "xfeat" and a.patch_size != XFEAT_PATCH:
        raise ValueError(f"encoder xfeat needs a patch_size of 8, found {a.patch_size}")
    if a.pos_embed_image_size % a.patch_size:
        raise ValueError(
            f"pos_embed_image_size ({a.pos_embed_image_size}) must be a multiple of patch_size "
            f"({a.patch_size})"
        )


LOGER = Architecture()
LOGER_STAR = replace(LOGER, ttt_pre_norm=False, se3=True)
TINY = Architecture(
    encoder="xfeat",
    pos_embed_image_size=96,
    patch_size=8,
    embed_dim=80,
    decoder_depth=6,
    decoder_num_heads=4,
    layer_scale=1.0,
    num_register_tokens=2,
    ttt_insert_after=(0, 2, 4),
    attn_insert_after=(4,),
    ttt_head_dim=40,
    ttt_inter_multi=2,
    head_embed_dim=40,
    head_num_heads=2,
    head_depth=1,
    camera_dim=40,
    pixel_limit=224 * 168,
)
"""For our own training: fit for two CPU cores and for a package."""

PRESETS: Mapping[str, Architecture] = {
    "loger": LOGER,
    "loger-star": LOGER_STAR,
    "loger-tiny": TINY,
}
