"""The LoGeR network: encoder, decoder with memory, and heads composed.

A window passes in four calls: `encode` (frames alone), `begin`, `advance` through the blocks, and
`decode`. `forward` does them all. Autograd passes through everything; callers that only infer wrap
the calls in `torch.inference_mode`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scal3r_ros.networks.dinov2 import ImageEncoder
from scal3r_ros.networks.feature_encoder import FeatureEncoder
from scal3r_ros.networks.images import check_images, patch_grid, unit_range
from scal3r_ros.networks.layers import grid_positions, products_in
from scal3r_ros.networks.loger.architecture import Architecture, Numerics
from scal3r_ros.networks.loger.decoder import Decoder, WindowPass, device_of
from scal3r_ros.networks.loger.heads import CameraHead, HeadDecoder, PatchHead, local_points
from scal3r_ros.networks.loger.state import Shape, WindowShapes, WindowState
from scal3r_ros.networks.loger.windows import window_tokens

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Prediction:
    """Raw network output of one window, float32."""

    poses: Tensor
    """(B, S, 4, 4) rigid, camera to world, in the gauge that the memory carries."""
    local_points: Tensor
    """(B, S, H, W, 3) in the camera frame, up to scale; the third is depth."""
    confidence: Tensor
    """(B, S, H, W) logits."""


class LoGeR(Decoder):
    """Attribute names are the key prefixes of the released checkpoints."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, architecture: Architecture, numerics: Numerics | None = None):
        super().__init__(architecture, numerics or Numerics())
        a = architecture
        self.encoder = _encoder(a)
        self.register_token = nn.Parameter(
            torch.randn(1, 1, a.num_register_tokens, a.embed_dim) * 0.02
        )
        self.pe_token_0, self.pe_token_1, self.pe_token_2 = (
            nn.Parameter(torch.randn(1, 1, 1, a.embed_dim) * 0.02) for _ in range(3)
        )
        self.point_decoder = HeadDecoder(a, a.head_embed_dim)
        self.point_head = PatchHead(a.head_embed_dim, 3, a.patch_size)
        self.conf_decoder = HeadDecoder(a, a.head_embed_dim)
        self.conf_head = PatchHead(a.head_embed_dim, 1, a.patch_size)
        self.camera_decoder = HeadDecoder(a, a.camera_dim)
        self.camera_head = CameraHead(a.camera_dim)
        self.register_buffer("image_mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor(_STD).view(1, 3, 1, 1))

    @property
    def device(self) -> torch.device:
        """Where images enter."""
        return device_of(self.encoder)

    def forward(
        self,
        images: Tensor,
        window: int,
        overlap: int,
        state: WindowState | None = None,
        remember: bool = True,
    ) -> tuple[Prediction, WindowState]:
        """One window (B, S, 3, H, W), uint8 or in [0, 1], and what it leaves to the next.

        `window` and `overlap` are the nominal sizes of the sequence, which a shorter window keeps.
        """
        tokens = self.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        state = state or WindowState()
        passing = self.begin(tokens, self.grid(images), window, overlap, state, remember)
        with self.block_precision():
            self.advance(passing, self.architecture.decoder_depth - 1)
        return self.decode(passing), passing.after

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Patches (gh, gw) of images (..., H, W)."""
        return patch_grid(images, self.architecture.patch_size)

    def encode(self, images: Tensor) -> Tensor:
        """Frames (N, 3, H, W), uint8 or float in [0, 1], to patch tokens (N, gh * gw, C)."""
        self.grid(images)
        check_images(images)
        tokens = []
        for batch in images.split(self.numerics.encoder_batch):
            batch = unit_range(batch.to(self.device))
            with self.block_precision():
                tokens.append(self._patch_tokens(batch).float())
        return torch.cat(tokens)

    def _patch_tokens(self, images: Tensor) -> Tensor:
        if isinstance(self.encoder, FeatureEncoder):
            return self.encoder(images)[..., : self.architecture.embed_dim]
        return self.encoder.encode_normalised((images - self.image_mean) / self.image_std)

    def begin(
        self,
        patch_tokens: Tensor,
        grid: tuple[int, int],
        window: int,
        overlap: int,
        before: WindowState,
        remember: bool = True,
    ) -> WindowPass:
        """Prepend registers and window tokens to `patch_tokens` (B, S, gh * gw, C)."""
        a = self.architecture
        batch, frames = patch_tokens.shape[:2]
        kinds = window_tokens(frames, window, overlap)
        learned = (self.pe_token_0, self.pe_token_1, self.pe_token_2)
        place = torch.cat([x.expand(-1, kinds.count(i), -1, -1) for i, x in enumerate(learned)], 1)
        registers = self.register_token.expand(-1, frames, -1, -1)
        special = torch.cat((registers, place), dim=2).to(patch_tokens.device)
        special = special.expand(batch, -1, -1, -1)
        return WindowPass(
            tokens=torch.cat((special, patch_tokens), dim=2).float(),
            grid=grid,
            positions=grid_positions(grid, a.special_tokens, patch_tokens.device),
            before=before,
            after=WindowState(before.windows + 1) if remember else before,
            remember=remember,
            rope_base=a.rope_base,
            angles=getattr(torch, self.numerics.blocks),
        )

    def hidden(self, window: WindowPass) -> Tensor:
        """What the heads read, (B, S, P, 2C), once all blocks are passed."""
        device = device_of(self.point_decoder)
        return torch.cat([x.to(device) for x in window.late], dim=-1)

    def decode(self, window: WindowPass) -> Prediction:
        """Run the heads on a window that has passed all blocks."""
        hidden = self.hidden(window)
        window.tokens = hidden  # tables are made where the heads are
        parts = [
            self._heads(batch, window)
            for batch in hidden.flatten(0, 1).split(self.numerics.head_batch)
        ]
        poses, points, logits = (torch.cat(x).unflatten(0, hidden.shape[:2]) for x in zip(*parts))
        return Prediction(poses, points, logits)

    def features(self, decoder: HeadDecoder, hidden: Tensor, window: WindowPass) -> Tensor:
        """Output (N, P, out) of a head decoder for the hidden tokens (N, P, 2C) of frames."""
        a = self.architecture
        rotary = window.rotary(a.head_embed_dim // a.head_num_heads)
        with self.block_precision():
            return decoder(hidden, rotary).float()

    def _heads(self, hidden: Tensor, window: WindowPass) -> tuple[Tensor, Tensor, Tensor]:
        """Poses, local points and confidence logits of frames; the last layers are float32."""
        special = self.architecture.special_tokens
        points, confidence, camera = (
            self.features(decoder, hidden, window)[:, special:]
            for decoder in (self.point_decoder, self.conf_decoder, self.camera_decoder)
        )
        with products_in("float32", hidden.device):
            return (
                self.camera_head(camera),
                local_points(self.point_head(points, window.grid)),
                self.conf_head(confidence, window.grid)[..., 0],
            )

    def state_shapes(self) -> WindowShapes:
        """What a state of this network looks like, by layer."""
        a = self.architecture
        weights = {}
        for layer in range(len(self.ttt_layers)):
            memory = self.memory(layer)
            device = device_of(memory)
            w0, w1, w2 = (Shape(tuple(w.shape), device) for w in memory.initial())
            weights[layer] = (w0, w1, w2)
        head = a.embed_dim // a.decoder_num_heads
        sizes = (1, a.decoder_num_heads, -1, head)
        cache = {i: Shape(sizes, device_of(block)) for i, block in enumerate(self.swa_layers)}
        return WindowShapes(weights, cache)

    def block_precision(self) -> AbstractContextManager[None]:
        """Number format of matrix products in everything but the last layers of the heads."""
        return products_in(self.numerics.blocks, self.device)


def _encoder(a: Architecture) -> ImageEncoder | FeatureEncoder:
    if a.encoder == "xfeat":
        return FeatureEncoder(a.embed_dim, a.pos_embed_grid)
    return ImageEncoder(
        a.embed_dim,
        a.encoder_depth,
        a.encoder_num_heads,
        patch_size=a.patch_size,
        pos_embed_grid=a.pos_embed_grid,
        num_register_tokens=a.encoder_register_tokens,
        mlp_ratio=a.mlp_ratio,
        mask_token=False,
    )
