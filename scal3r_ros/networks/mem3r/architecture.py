"""Sizes of a network of the CUT3R family. The defaults are the public model of 512 pixels.

Fixed by the family and therefore no options: layer norms with eps 1e-6, exact GELU, biases
everywhere, no layer scale, no norm of queries and keys, MLPs four times as wide, rotary base 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scal3r_ros.networks.stored_sizes import StoredSizes

EPS = 1e-6
"""Of every layer norm."""
MLP_RATIO = 4
ROPE_BASE = 100.0
RAY_CHANNELS = 6
MEMORY_BLOCKS = 2
"""Blocks that read the pose memory of CUT3R, and as many that write it."""


@dataclass(frozen=True)
class Architecture(StoredSizes):
    """Everything that decides the keys and shapes of a checkpoint."""

    patch_size: int = 16
    enc_embed_dim: int = 1024
    """Token width of the encoder."""
    enc_depth: int = 24
    enc_num_heads: int = 16
    encoder_half_rope: bool = True
    """Round queries and keys of the encoder to float16 before and after their rotation, as the
    public weights were trained; off for networks of our own."""
    dec_embed_dim: int = 768
    """Token width of both decoders."""
    dec_depth: int = 12
    dec_num_heads: int = 12
    """Heads of the image decoder, the pose memory and the transform of the world map."""
    state_dec_num_heads: int = 16
    state_size: int = 768
    """State tokens."""
    state_pe: str = "2d"
    """Positions of the state tokens: `2d` on a grid, `1d` on its diagonal, `none`."""
    pose_memory: str = "slots"
    """`slots`: tokens read and written by attention (CUT3R). `fast_weights`: a small MLP adapted
    by every frame, together with a gate on the state (Mem3R)."""
    local_mem_size: int = 256
    """Slots of the pose memory."""
    lr_base: float = 0.001
    """Rate of the fast weights that an untrained rate head gives."""
    decay: float = 0.01
    """Largest share that the fast weights forget per frame."""
    head: str = "dpt"
    """`dpt`, or `linear`: an MLP for every patch."""
    dpt_features: int = 256
    dpt_last: int = 128
    dpt_layers: tuple[int, ...] = (96, 192, 384, 768)
    world_map: bool = True
    """Whether there are weights for the map in the frame of the first camera."""
    ray_maps: bool = True
    """Whether the weights for ray-map queries exist: their encoder and the colour head. They are
    loaded and not used."""
    ray_enc_depth: int = 2
    encoder: str = "patches"
    """`patches`, or `xfeat`: the convolutions of XFeat in front of the blocks (networks of our
    own)."""
    last_frame: bool = False
    """Keep the tokens of the frame before beside the learned state, so that a frame can be matched
    with it directly (networks of our own)."""
    image_size: int = 512
    """Long edge in pixels to which images are scaled (224: short edge)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dpt_layers", tuple(self.dpt_layers))
        _check(self)

    @property
    def hooks(self) -> tuple[int, int]:
        """Finished image blocks behind which the heads read the two middle levels."""
        return 2 * self.dec_depth // 4, 3 * self.dec_depth // 4

    @property
    def gate_width(self) -> int:
        return self.dec_embed_dim // 2


def _check(a: Architecture) -> None:
    for name, width, heads in (
        ("enc_num_heads", a.enc_embed_dim, a.enc_num_heads),
        ("dec_num_heads", a.dec_embed_dim, a.dec_num_heads),
        ("state_dec_num_heads", a.dec_embed_dim, a.state_dec_num_heads),
    ):
        if width % (4 * heads):
            raise ValueError(f"{name} ({heads}) must split width {width} into multiples of 4")
    for name, value, known in (
        ("state_pe", a.state_pe, ("2d", "1d", "none")),
        ("pose_memory", a.pose_memory, ("slots", "fast_weights")),
        ("head", a.head, ("dpt", "linear")),
        ("encoder", a.encoder, ("patches", "xfeat")),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; found {value!r}")
    if a.head == "dpt" and a.patch_size != 16:
        raise ValueError(f"head dpt needs patch_size 16, found {a.patch_size}; take head linear")
    if a.encoder == "xfeat" and a.patch_size != 8:
        raise ValueError(f"encoder xfeat needs patch_size 8, found {a.patch_size}")
    if a.head == "dpt" and not a.world_map:
        raise ValueError("head dpt always has a world map; leave world_map at true")


CUT3R_512 = Architecture()
CUT3R_224 = Architecture(head="linear", image_size=224)
PRESETS: Mapping[str, Architecture] = {
    "cut3r-512": CUT3R_512,
    "cut3r-224": CUT3R_224,
    "mem3r-512": Architecture(pose_memory="fast_weights"),
    "mem3r-tiny": Architecture(
        patch_size=8,
        enc_embed_dim=96,
        enc_depth=3,
        enc_num_heads=4,
        encoder_half_rope=False,
        dec_embed_dim=96,
        dec_depth=3,
        dec_num_heads=4,
        state_dec_num_heads=4,
        state_size=140,
        pose_memory="fast_weights",
        head="linear",
        world_map=False,
        ray_maps=False,
        image_size=112,
    ),
    "mem3r-matching": Architecture(
        patch_size=8,
        enc_embed_dim=96,
        enc_depth=1,
        enc_num_heads=4,
        encoder_half_rope=False,
        dec_embed_dim=96,
        dec_depth=4,
        dec_num_heads=4,
        state_dec_num_heads=4,
        state_size=96,
        pose_memory="fast_weights",
        head="linear",
        world_map=False,
        ray_maps=False,
        encoder="xfeat",
        last_frame=True,
        image_size=112,
    ),
}
"""The public sizes, Mem3R's, and two fit for a CPU core: the specification's small one, and ours
that matches a frame with the one before."""
