"""Image encoder: a DINOv2 vision transformer with register tokens, applied to every frame alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.layers import Block

_EPS = 1e-6
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class PatchProjection(nn.Module):
    """Linear embedding of non-overlapping square patches."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class ImageEncoder(nn.Module):
    """(N, 3, H, W) images in [0, 1] to (N, gh * gw, C) normalised patch tokens, row by row."""

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        *,
        patch_size: int,
        pos_embed_grid: int,
        num_register_tokens: int,
        mlp_ratio: int = 4,
        layer_scale: float = 1.0,
        mask_token: bool = True,
    ):
        """`pos_embed_grid` is the side in patches of the square that the stored position embedding
        covers, `layer_scale` the initial value of the residual branches' scales. `mask_token`:
        whether the checkpoint holds that token, which is never used."""
        super().__init__()
        self.patch_size, self.side = patch_size, pos_embed_grid
        self.patch_embed = PatchProjection(patch_size, dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.side**2, dim))
        self.register_tokens = nn.Parameter(torch.empty(1, num_register_tokens, dim))
        self.mask_token = nn.Parameter(torch.empty(1, dim)) if mask_token else None
        for parameter in self.parameters(recurse=False):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio, layer_scale, _EPS) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=_EPS)

    def forward(self, images: Tensor) -> Tensor:
        return self.encode_normalised(_normalised(images))

    def encode_normalised(self, images: Tensor) -> Tensor:
        """The same for images that have the mean and deviation of the training images already."""
        tokens = self.patch_embed(images)
        height, width = images.shape[-2:]
        cls_position, position = self.position_embedding(
            (height // self.patch_size, width // self.patch_size)
        )
        count = len(images)
        leading = torch.cat((self.cls_token + cls_position, self.register_tokens), dim=1)
        x = torch.cat((leading.expand(count, -1, -1), tokens + position), dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, leading.shape[1] :])

    def position_embedding(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Embeddings of the class token (1, 1, C) and of the patches (1, gh * gw, C)."""
        cls_position, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        if grid == (self.side, self.side):
            return cls_position, patches
        square = patches.float().unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        resized = F.interpolate(
            square, size=grid, mode="bicubic", antialias=True, align_corners=False
        )
        return cls_position, resized.flatten(2).transpose(1, 2)


def _normalised(images: Tensor) -> Tensor:
    """Channel by channel with plain numbers: a tensor of them would make a GPU wait."""
    channels = zip(images.unbind(1), _MEAN, _STD)
    return torch.stack([(channel - mean) / std for channel, mean, std in channels], dim=1)
