"""The network: an image and a state in, a refined pose token, a proposed state and maps out.

Two decoders run side by side. At every depth the state tokens read the image tokens and the image
tokens the state, both as they stood before that depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scal3r_ros.networks.feature_encoder import FeatureEncoder
from scal3r_ros.networks.mem3r.architecture import EPS, RAY_CHANNELS, Architecture
from scal3r_ros.networks.mem3r.attention import (
    AttentionObserver,
    image_positions,
    state_positions,
    table,
)
from scal3r_ros.networks.mem3r.blocks import DecoderBlock, EncoderBlock
from scal3r_ros.networks.mem3r.heads import Hooks, make_heads
from scal3r_ros.networks.mem3r.pose_fast_weights import PoseFastWeights, StateGate
from scal3r_ros.networks.mem3r.pose_slots import PoseSlots


@dataclass(frozen=True)
class Encoded:
    """Features of images."""

    tokens: Tensor
    """(B, N, d_e)."""
    grid: tuple[int, int]
    """Rows and columns of patches."""

    @property
    def mean(self) -> Tensor:
        """(B, d_e)."""
        return self.tokens.mean(1)

    def __getitem__(self, item: slice) -> Encoded:
        return Encoded(self.tokens[item], self.grid)


@dataclass(frozen=True)
class Decoded:
    """What one frame makes of the state."""

    candidate: Tensor
    """Proposed state tokens, normalised, (B, S, d)."""
    hooks: Hooks


class Mem3R(nn.Module):
    """CUT3R with `pose_memory: slots`, Mem3R with `fast_weights`."""

    def __init__(self, a: Architecture):
        super().__init__()
        self.architecture = a
        self.patch_embed: nn.Module
        if a.encoder == "xfeat":
            self.patch_embed = FeatureEncoder(a.enc_embed_dim, a.image_size // a.patch_size)
        else:
            self.patch_embed = PatchProjection(3, a)
        self.enc_blocks = _encoder_blocks(a, a.enc_depth, a.encoder_half_rope)
        self.enc_norm = nn.LayerNorm(a.enc_embed_dim, eps=EPS)
        self.decoder_embed = nn.Linear(a.enc_embed_dim, a.dec_embed_dim)
        self.dec_blocks = _decoder_blocks(a, a.dec_num_heads)
        self.dec_norm = nn.LayerNorm(a.dec_embed_dim, eps=EPS)
        self.register_tokens = nn.Embedding(a.state_size, a.enc_embed_dim)
        self.decoder_embed_state = nn.Linear(a.enc_embed_dim, a.dec_embed_dim)
        self.dec_blocks_state = _decoder_blocks(a, a.state_dec_num_heads)
        self.dec_norm_state = nn.LayerNorm(a.dec_embed_dim, eps=EPS)
        self.pose_token = nn.Parameter(torch.randn(1, 1, a.dec_embed_dim) * 0.02)
        if a.pose_memory == "slots":
            self.pose_retriever = PoseSlots(a)
        else:
            self.pose_memory = PoseFastWeights(a)
            self.pose_memory.out.bias.data = self.pose_token.data.flatten().clone()
            self.state_gate = StateGate(a)
        self.downstream_head = make_heads(a)
        if a.ray_maps:
            self._add_ray_maps(a)

    def _add_ray_maps(self, a: Architecture) -> None:
        """Weights of queries without an image, which are in every public file."""
        self.masked_img_token = nn.Parameter(torch.randn(1, a.enc_embed_dim) * 0.02)
        self.masked_ray_map_token = nn.Parameter(torch.randn(1, a.enc_embed_dim) * 0.02)
        self.patch_embed_ray_map = PatchProjection(RAY_CHANNELS, a)
        self.enc_blocks_ray_map = _encoder_blocks(a, a.ray_enc_depth, False)
        self.enc_norm_ray_map = nn.LayerNorm(a.enc_embed_dim, eps=EPS)

    @property
    def memory(self) -> PoseSlots | PoseFastWeights:
        """The memory of poses."""
        return self.pose_retriever if self.uses_slots else self.pose_memory

    @property
    def uses_slots(self) -> bool:
        return self.architecture.pose_memory == "slots"

    def encode(self, images: Tensor) -> Encoded:
        """`images` (B, 3, H, W) between -1 and 1, sides multiples of the patch size."""
        patch = self.architecture.patch_size
        height, width = images.shape[-2:]
        if height % patch or width % patch:
            raise ValueError(
                f"images of {height} x {width} pixels do not divide into patches of {patch}; "
                f"resize them first"
            )
        grid = height // patch, width // patch
        tokens = self.patch_embed(images)[..., : self.architecture.enc_embed_dim]
        head = self.architecture.enc_embed_dim // self.architecture.enc_num_heads
        rotary = table(image_positions(grid, False, images.device), head)
        for block in self.enc_blocks:
            tokens = block(tokens, rotary)
        return Encoded(self.enc_norm(tokens), grid)

    def initial_state(self, batch: int) -> Tensor:
        """State tokens before any frame, (B, S, d)."""
        tokens = self.decoder_embed_state(self.register_tokens.weight)
        return tokens.expand(batch, -1, -1)

    def decode(
        self,
        state: Tensor,
        frame: Encoded,
        prior: Tensor,
        observe: AttentionObserver | None = None,
        last: Encoded | None = None,
        observe_image: AttentionObserver | None = None,
    ) -> Decoded:
        """`state` (B, S, d) and pose token `prior` (B, d) against a frame. `observe` is shown the
        queries and keys with which every state block looks at the image, `observe_image` those with
        which every image block looks at the state. With `last` the tokens of the frame before stand
        behind the state's."""
        a, size = self.architecture, state.shape[1]
        image = torch.cat((prior[:, None], self.decoder_embed(frame.tokens)), dim=1)
        at_image = image_positions(frame.grid, True, image.device)
        at_state = state_positions(size, a.state_pe, image.device)
        if last is not None:
            state = torch.cat((state, self.decoder_embed(last.tokens)), dim=1)
            at_state = _followed_by(at_state, size, image_positions(last.grid, False, image.device))
        of_learned = None if observe is None else _first_queries(observe, size)
        turns = [
            (table(at_image, size), table(at_state, size))
            for size in (
                a.dec_embed_dim // a.dec_num_heads,
                a.dec_embed_dim // a.state_dec_num_heads,
            )
        ]
        (image_of_image, state_of_image), (image_of_state, state_of_state) = turns
        kept = []
        for depth, (of_state, of_image) in enumerate(
            zip(self.dec_blocks_state, self.dec_blocks), 1
        ):
            state, image = (
                of_state(state, image, state_of_state, image_of_state, of_learned),
                of_image(image, state, image_of_image, state_of_image, observe_image),
            )
            kept += [image[:, 1:]] * a.hooks.count(depth)
        levels = (frame.tokens, kept[0], kept[1])
        hooks = Hooks(levels, self.dec_norm(image), frame.grid)
        return Decoded(self.dec_norm_state(state[:, :size]), hooks)


def _followed_by(at_state: Tensor | None, size: int, others: Tensor) -> Tensor:
    """Positions of the state, or the origin where it has none, and behind them `others`."""
    first = others.new_zeros(size, 2) if at_state is None else at_state
    return torch.cat((first, others))


def _first_queries(observe: AttentionObserver, count: int) -> AttentionObserver:
    """Shows only the first `count` queries."""
    return lambda queries, keys: observe(queries[:, :, :count], keys)


class PatchProjection(nn.Module):
    """Linear embedding of non-overlapping square patches, row by row."""

    def __init__(self, channels: int, a: Architecture):
        super().__init__()
        self.proj = nn.Conv2d(channels, a.enc_embed_dim, a.patch_size, stride=a.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, N, d_e)."""
        return self.proj(images).flatten(2).transpose(1, 2)


def _encoder_blocks(a: Architecture, depth: int, half_rope: bool) -> nn.ModuleList:
    return nn.ModuleList(
        EncoderBlock(a.enc_embed_dim, a.enc_num_heads, half_rope) for _ in range(depth)
    )


def _decoder_blocks(a: Architecture, heads: int) -> nn.ModuleList:
    return nn.ModuleList(DecoderBlock(a.dec_embed_dim, heads) for _ in range(a.dec_depth))
