"""Image encoder of small networks: XFeat's backbone, which was trained to match real images.

XFeat (Potje et al., CVPR 2024) is described by its layers; its batch normalisations have no learned
part and are folded into the convolutions in front of them, so that the encoder can be trained on
and is exported as plain convolutions. Where training starts, the weights come from the package that
`networks.xfeat` names; a checkpoint holds its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 8
"""Pixels per side of a patch: the stride of the features."""
FEATURES, GUIDES = 64, 72
"""Channels of the features, and of the finer maps stacked at a quarter of the image's size."""
GUIDE_CHANNELS = 4 * GUIDES
"""The finer maps of one patch."""
_BN_EPS = 1e-5


class FeatureBackbone(nn.Module):
    """Convolutions from one normalised grey plane to features and finer maps."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = _layers((1, 4, 3, 1), (4, 8, 3, 2), (8, 8, 3, 1), (8, 24, 3, 2))
        self.block2 = _layers((24, 24, 3, 1), (24, 24, 3, 1))
        self.block3 = _layers((24, 64, 3, 2), (64, 64, 3, 1), (64, 64, 1, 1))
        self.block4 = _layers((64, 64, 3, 2), (64, 64, 3, 1), (64, 64, 3, 1))
        self.block5 = _layers((64, 128, 3, 2), (128, 128, 3, 1), (128, 128, 3, 1), (128, 64, 1, 1))
        self.block_fusion = _layers((64, 64, 3, 1), (64, 64, 3, 1))
        self.skip1 = nn.Conv2d(1, 24, 1)
        self.fusion_out = nn.Conv2d(FEATURES, FEATURES, 1)

    def forward(self, plane: Tensor) -> tuple[Tensor, Tensor]:
        """Planes (N, 1, H, W), sides multiples of 8, to features (N, 64, H/8, W/8) and guides
        (N, 72, H/4, W/4)."""
        half = _run(self.block1[:3], plane)
        quarter = _run(self.block1[3:], half) + self.skip1(F.avg_pool2d(plane, 4))
        quarter = _run(self.block2, quarter)
        eighth = _run(self.block3, quarter)
        sixteenth = _run(self.block4, eighth)
        coarse = _run(self.block5, sixteenth)
        fused = eighth + _enlarged(sixteenth, 2, eighth) + _enlarged(coarse, 4, eighth)
        features = self.fusion_out(_run(self.block_fusion, fused))
        guides = (quarter, F.pixel_unshuffle(half, 2), F.pixel_unshuffle(plane, 4))
        return features, torch.cat(guides, dim=1)

    @torch.no_grad()
    def read_xfeat(self, state: Mapping[str, Tensor]) -> None:
        """Take over XFeat's own weights, keys as in `networks.xfeat`, normalisations folded."""
        own = self.state_dict()
        for key in (key for key in own if key.startswith("block") and key.endswith("weight")):
            layer = f"{key.removesuffix('.weight')}.layer"
            spread = (state[f"{layer}.1.running_var"] + _BN_EPS).sqrt()
            own[key].copy_(state[f"{layer}.0.weight"] / spread[:, None, None, None])
            own[key.replace("weight", "bias")].copy_(-state[f"{layer}.1.running_mean"] / spread)
        for name, key in (("skip1", "skip1.1"), ("fusion_out", "block_fusion.2")):
            for kind in ("weight", "bias"):
                own[f"{name}.{kind}"].copy_(state[f"{key}.{kind}"])


class FeatureEncoder(nn.Module):
    """(N, 3, H, W) images in [0, 1] to (N, gh * gw, C + 288): patch tokens, row by row, and behind
    each the finer maps of its patch, which guide the dense head."""

    def __init__(self, dim: int, pos_embed_grid: int) -> None:
        super().__init__()
        self.side = pos_embed_grid
        self.backbone = FeatureBackbone()
        self.proj = nn.Linear(FEATURES + GUIDE_CHANNELS, dim)
        self.pos_embed = nn.Parameter(torch.empty(1, self.side**2, dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        features, guides = self.backbone(normalised(images))
        grid = features.shape[-2:]
        cells = F.pixel_unshuffle(guides, 2).flatten(2).transpose(1, 2)
        described = torch.cat((features.flatten(2).transpose(1, 2), cells), dim=-1)
        return torch.cat((self.proj(described) + self.position_embedding(grid), cells), dim=-1)

    def position_embedding(self, grid: tuple[int, int]) -> Tensor:
        """Embeddings of the patches, (1, gh * gw, C)."""
        square = self.pos_embed.float().unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        resized = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
        return resized.flatten(2).transpose(1, 2)


def normalised(images: Tensor) -> Tensor:
    """(N, 1, H, W): the mean over channels with zero mean and unit variance in each image."""
    return F.instance_norm(images.mean(dim=1, keepdim=True), eps=1e-5)


def _layers(*shapes: tuple[int, int, int, int]) -> nn.ModuleList:
    """Convolutions from (inputs, outputs, kernel, stride) each; a ReLU follows each of them."""
    return nn.ModuleList(nn.Conv2d(i, o, k, s, padding=k // 2) for i, o, k, s in shapes)


def _run(convolutions: Iterable[nn.Module], x: Tensor) -> Tensor:
    for convolution in convolutions:
        x = convolution(x).relu()
    return x


def _enlarged(coarse: Tensor, factor: int, like: Tensor) -> Tensor:
    """Enlarged by exactly `factor`, and cut where the coarse map reaches beyond the image."""
    large = F.interpolate(coarse, scale_factor=factor, mode="bilinear", align_corners=False)
    return large[..., : like.shape[-2], : like.shape[-1]]
