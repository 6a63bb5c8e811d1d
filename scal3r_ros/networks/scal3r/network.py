"""The Scal3R network: encoder, aggregator and heads composed.

A chunk passes in four calls: `encode` (frames alone), `begin`, layer segments under a schedule
(`run_round`), and `decode`. `forward` does them all for training and for tests. Autograd passes
through everything; callers that only infer wrap the calls in `torch.inference_mode`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scal3r_ros.networks.fast_weights import FastWeights
from scal3r_ros.networks.images import check_images, patch_grid, unit_range
from scal3r_ros.networks.layers import products_in
from scal3r_ros.networks.scal3r.aggregator import Aggregator, Observe
from scal3r_ros.networks.scal3r.architecture import Architecture, Numerics
from scal3r_ros.networks.scal3r.camera_head import CameraHead
from scal3r_ros.networks.scal3r.chunk_state import ChunkState
from scal3r_ros.networks.scal3r.dense_head import (
    DptHead,
    LinearHead,
    dense_head,
    depth_and_confidence,
    points_and_confidence,
)
from scal3r_ros.networks.scal3r.guided_head import GuidedHead
from scal3r_ros.networks.scal3r.memory import ContextMemory, RoundMemory
from scal3r_ros.networks.scal3r.schedule import run_round

_DEPTH, _POINTS = "depth", "points"


@dataclass(frozen=True)
class Prediction:
    """Raw network output of one chunk, frames in network order, float32."""

    cameras: Tensor
    """(iterations, B, S, 9) encodings [t | quaternion xyzw | fov_h, fov_w], world to camera."""
    depth: Tensor
    """(B, S, H, W)."""
    depth_confidence: Tensor
    points: Tensor | None = None
    """(B, S, H, W, 3) in the world of the first frame, None unless asked for."""
    points_confidence: Tensor | None = None

    @property
    def camera(self) -> Tensor:
        """(B, S, 9), the last iteration."""
        return self.cameras[-1]


class Scal3R(nn.Module):
    """Attribute names are the key prefixes of the official checkpoint."""

    def __init__(self, architecture: Architecture, numerics: Numerics | None = None):
        super().__init__()
        self.architecture = architecture
        self.numerics = numerics or Numerics()
        self.agg_regator = Aggregator(architecture)
        self.cam_decoder = CameraHead(architecture)
        self.dpt_decoder = dense_head(architecture, 2)
        if architecture.points_head:
            self.xyz_decoder = dense_head(architecture, 4)

    @property
    def device(self) -> torch.device:
        return self.agg_regator.camera_token.device

    def forward(
        self,
        chunks: Tensor | Sequence[Tensor],
        points: bool = False,
        memory: RoundMemory | None = None,
        observe: Observe | None = None,
    ) -> list[Prediction]:
        """Chunks that share one memory, each (B, S, 3, H, W) in [0, 1] or uint8, in network order.

        A single tensor is one chunk. B counts independent scenes. Without `memory` a fresh one is
        used, which the chunks of this call share.
        """
        chunks = [chunks] if isinstance(chunks, Tensor) else chunks
        states: list[ChunkState] = []
        for images in chunks:
            tokens = self.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2])
            states.append(self.begin(tokens, self.grid(images), points))
        if memory is None:
            memory = ContextMemory(self.numerics.newton_schulz).round(len(states))
        run_round(self, states, memory, observe)
        return [self.decode(state) for state in states]

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Patches (gh, gw) of images (..., H, W)."""
        return patch_grid(images, self.architecture.patch_size)

    def encode(self, images: Tensor) -> Tensor:
        """Frames (N, 3, H, W), uint8 or float in [0, 1], to patch tokens (N, gh * gw, C); some
        encoders put more channels behind them, for the dense head."""
        self.grid(images)
        check_images(images)
        tokens = []
        for batch in images.split(self.numerics.encoder_batch):
            batch = unit_range(batch.to(self.device))
            with self.block_precision():
                tokens.append(self.agg_regator.patch_embed(batch).float())
        return torch.cat(tokens)

    def begin(
        self, patch_tokens: Tensor, grid: tuple[int, int], points: bool = False
    ) -> ChunkState:
        """Start a chunk from what `encode` made of its frames (B, S, gh * gw, C or more), in
        network order."""
        if points and not self.architecture.points_head:
            raise ValueError("this network has no point head; switch model.point_head off")
        width = self.architecture.embed_dim
        state = self.agg_regator.begin(patch_tokens[..., :width], grid)
        levels: tuple[Tensor, ...] = ()
        if self.architecture.dense_head == "guided":
            guides = patch_tokens[..., width:].flatten(0, 1).transpose(1, 2)
            levels = (guides.unflatten(2, grid),)
        state.levels = dict.fromkeys((_DEPTH, _POINTS) if points else (_DEPTH,), levels)
        return state

    def collect(self, state: ChunkState, layer: int, frame_half: Tensor, tokens: Tensor) -> None:
        """Reduce a finished layer to what the heads keep of it, in float32."""
        with self.full_precision():
            self._collect(state, layer, frame_half, tokens)

    def _collect(self, state: ChunkState, layer: int, frame_half: Tensor, tokens: Tensor) -> None:
        special = self.architecture.special_tokens
        if layer == self.architecture.intermediate_layers[-1]:
            state.camera_tokens = torch.cat((frame_half[:, :, 0], tokens[:, :, 0]), dim=-1).float()
        halves = [x[:, :, special:].flatten(0, 1) for x in (frame_half, tokens)]
        batches = list(zip(*(x.split(self.numerics.head_batch) for x in halves)))
        for name in state.levels:
            head = self._head(name)
            for level, collected in enumerate(self.architecture.intermediate_layers):
                if collected != layer:
                    continue
                parts = [
                    head.project(level, torch.cat(batch, dim=-1).float(), state.grid)
                    for batch in batches
                ]
                state.levels[name] += tuple(torch.cat(x) for x in zip(*parts))

    def decode(self, state: ChunkState) -> Prediction:
        """Run the heads on a chunk that has passed all layers, in float32."""
        with self.full_precision():
            return self._decode(state)

    def _decode(self, state: ChunkState) -> Prediction:
        shape = state.tokens.shape[:2]
        maps = {}
        for name, levels in state.levels.items():
            head = self._head(name)
            activate = depth_and_confidence if name == _DEPTH else points_and_confidence
            batches = zip(*(level.split(self.numerics.head_batch) for level in levels))
            parts = [activate(head(batch)) for batch in batches]
            maps[name] = [torch.cat(x).unflatten(0, shape) for x in zip(*parts)]
        return Prediction(
            self.cam_decoder(state.camera_tokens), *maps[_DEPTH], *maps.get(_POINTS, ())
        )

    def memory_shapes(self) -> dict[int, FastWeights]:
        """By memory layer, one triple of the shapes and device that its gradients have."""
        units = {
            layer: self.agg_regator.memory_unit(layer) for layer in self.architecture.ttt_layers
        }
        return {layer: unit.initial() for layer, unit in units.items()}

    def block_precision(self) -> AbstractContextManager[None]:
        """Number format of encoder and aggregator blocks; everything else stays outside."""
        return products_in(self.numerics.blocks, self.device)

    def full_precision(self) -> AbstractContextManager[None]:
        """Shields memory and heads from a caller's lower precision."""
        return products_in("float32", self.device)

    def _head(self, name: str) -> DptHead | LinearHead | GuidedHead:
        return self.dpt_decoder if name == _DEPTH else self.xyz_decoder
