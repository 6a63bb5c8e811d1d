"""Arithmetic of one chunk, counted from the architecture: matrix products and convolutions, a
multiply and an add as two operations. Element-wise work is left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scal3r_ros.networks.fast_weights import GRAM_FROM, gram_steps
from scal3r_ros.networks.feature_encoder import FEATURES, GUIDE_CHANNELS, FeatureBackbone
from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.guided_head import GuidedHead
from scal3r_ros.networks.scal3r.key_selection import KeySelection
from scal3r_ros.networks.scal3r.token_merging import partition


@dataclass(frozen=True)
class ChunkCost:
    """Floating point operations of one chunk by part."""

    encoder: float
    blocks: float
    """Frame and global blocks without the attention over all frames' tokens."""
    global_attention: float
    memory: float
    camera: float
    dense: float

    @property
    def total(self) -> float:
        parts = (self.encoder, self.blocks, self.global_attention, self.memory)
        return sum(parts) + self.camera + self.dense


def chunk_cost(
    a: Architecture,
    frames: int,
    new_frames: int,
    grid: tuple[int, int],
    points: bool = False,
    keys: KeySelection | None = None,
) -> ChunkCost:
    """Cost of a chunk of `frames` with `new_frames` that the encoder has not seen before."""
    patches = grid[0] * grid[1]
    tokens = patches + a.special_tokens
    per_token = _block_linear(a.embed_dim, a.mlp_ratio)
    blocks = 2 * a.depth * frames * tokens * per_token
    blocks += a.depth * frames * _attention(tokens, a.embed_dim)
    heads = (2, 4) if points else (2,)
    return ChunkCost(
        encoder=new_frames * _encoder_frame(a, patches),
        blocks=blocks,
        global_attention=sum(
            _global_attention(a, frames, grid, keys, layer) for layer in range(a.depth)
        ),
        memory=len(a.ttt_layers) * _memory_layer(a, frames * patches),
        camera=_camera(a, frames),
        dense=frames * sum(_dense_frame(a, grid, out) for out in heads),
    )


def _global_attention(
    a: Architecture, frames: int, grid: tuple[int, int], keys: KeySelection | None, layer: int
) -> float:
    """Of one layer: all queries against the keys that a scheme keeps, and its search for them."""
    tokens = grid[0] * grid[1] + a.special_tokens
    rule = "all" if keys is None else keys.rule(layer, a.depth)
    if keys is None or rule == "all":
        return _attention(frames * tokens, a.embed_dim)
    if rule == "inside":
        return frames * _attention(tokens, a.embed_dim)
    if rule == "merge":
        kept, merged = partition(frames, grid, a.special_tokens, torch.device("cpu"))
        search = 2 * len(merged) * int(kept[:, 1].sum()) * a.embed_dim
        spared = 2 * len(merged) * a.embed_dim**2  # of the output projection
        return search - spared + _attention(len(kept), a.embed_dim)
    chosen = torch.zeros(frames, dtype=torch.bool)
    chosen[: keys.frames] = True
    places = keys.seen(layer, a.depth, grid, a.special_tokens, chosen)
    assert places is not None
    seen = len(places) + (keys.scheme == "grid" and keys.mean_of_rest)
    return 4.0 * frames * tokens * seen * a.embed_dim


def _block_linear(dim: int, ratio: int) -> float:
    """Per token: query, key, value, projection and the two layers of the MLP."""
    return 2 * dim * dim * (4 + 2 * ratio)


def _attention(tokens: int, dim: int) -> float:
    return 4 * tokens**2 * dim


def _encoder_frame(a: Architecture, patches: int) -> float:
    if a.encoder == "xfeat":
        return patches * (_backbone_patch() + 2 * (FEATURES + GUIDE_CHANNELS) * a.embed_dim)
    tokens = patches + 1 + a.num_register_tokens
    block = tokens * _block_linear(a.embed_dim, a.mlp_ratio) + _attention(tokens, a.embed_dim)
    return 2 * patches * 3 * a.patch_size**2 * a.embed_dim + a.vit_depth * block


def _backbone_patch() -> float:
    """Operations of the convolutions per patch of 8 x 8 pixels, where maps have even sides."""
    pixels = {"block1.0": 64, "block1": 16, "block1.3": 4, "block2": 4, "skip1": 4}
    pixels |= {"block3": 1, "block4": 1 / 4, "block5": 1 / 16, "block_fusion": 1, "fusion_out": 1}
    with torch.device("meta"):
        weights = {k: v for k, v in FeatureBackbone().state_dict().items() if v.ndim == 4}

    def place(key: str) -> float:
        name = key.removesuffix(".weight")
        return pixels.get(name, pixels.get(name.split(".")[0], 0.0))

    return sum(2 * place(key) * value.numel() for key, value in weights.items())


def _memory_layer(a: Architecture, tokens: int) -> float:
    dim = a.embed_dim
    width = dim // a.ttt_num_heads
    hidden = width * a.ttt_inter_multi
    product = 2 * a.ttt_num_heads * width * hidden
    per_token = 2 * dim * (2 * dim + 3 * a.ttt_num_heads) + 6 * product  # gradient
    per_token += 2 * dim * dim + 3 * product + 2 * dim * 3 * dim  # apply
    rows, columns = min(width, hidden), max(width, hidden)
    return tokens * per_token + 3 * a.ttt_num_heads * _newton_schulz(rows, columns, a.muon_steps)


def _newton_schulz(rows: int, columns: int, steps: int) -> float:
    """One matrix; wide ones go over their Gram matrix."""
    if columns >= GRAM_FROM * rows:
        parts = gram_steps(steps)
        return sum(4 * rows**2 * columns + 2 * rows**3 * (4 * part - 3) for part in parts)
    return steps * (4 * rows**2 * columns + 2 * rows**3)


def _camera(a: Architecture, frames: int) -> float:
    dim = 2 * a.embed_dim
    per_frame = 2 * (9 * dim + 3 * dim * dim + dim * dim // 2 + 9 * dim // 2)
    per_frame += a.camera_trunk_depth * _block_linear(dim, a.mlp_ratio)
    attention = a.camera_trunk_depth * _attention(frames, dim)
    return a.camera_iterations * (frames * per_frame + attention)


def _dense_frame(a: Architecture, grid: tuple[int, int], out: int) -> float:
    patches, width = grid[0] * grid[1], 2 * a.embed_dim
    if a.dense_head == "linear":
        return 2 * patches * width * out * a.patch_size**2
    if a.dense_head == "guided":
        with torch.device("meta"):
            weights = GuidedHead(a, out).state_dict()
        per_patch = {"coarse": 1, "context": 1}
        products = (
            per_patch.get(key.split(".")[0], 4) * value.numel()
            for key, value in weights.items()
            if value.ndim > 1
        )
        return 2 * patches * (sum(products) + 9 * out * a.patch_size**2)
    c, f = a.dpt_out_channels, a.dpt_features
    coarse = -(-grid[0] // 2) * -(-grid[1] // 2)
    areas = (16 * patches, 4 * patches, patches, coarse)
    macs = patches * width * sum(c)  # projections
    macs += patches * 16 * c[0] ** 2 + patches * 4 * c[1] ** 2 + coarse * 9 * c[3] ** 2  # resizes
    macs += sum(area * 9 * channels * f for area, channels in zip(areas, c))
    units = (4, 4, 4, 2)  # convolutions of the residual units at each level
    macs += sum(area * (n * 9 * f * f + f * f) for area, n in zip(areas, units))
    macs += 64 * patches * 9 * f * (f // 2)
    pixels = patches * a.patch_size**2
    macs += pixels * (9 * (f // 2) * a.dpt_head_hidden + a.dpt_head_hidden * out)
    return 2 * macs
