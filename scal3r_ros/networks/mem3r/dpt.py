"""Dense prediction transformer of CUT3R: four levels fused from coarse to fine, one map out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.mem3r.architecture import Architecture


class Dpt(nn.Module):
    """Tokens of four levels to a map of `out` channels at 16 times the grid."""

    def __init__(self, a: Architecture, out: int):
        super().__init__()
        c, features = a.dpt_layers, a.dpt_features
        widths = (a.enc_embed_dim, *(a.dec_embed_dim,) * 3)
        first = [nn.Conv2d(width, channels, 1) for width, channels in zip(widths, c)]
        self.act_postprocess = nn.ModuleList(
            (
                nn.Sequential(first[0], nn.ConvTranspose2d(c[0], c[0], 4, stride=4)),
                nn.Sequential(first[1], nn.ConvTranspose2d(c[1], c[1], 2, stride=2)),
                nn.Sequential(first[2]),
                nn.Sequential(first[3], nn.Conv2d(c[3], c[3], 3, stride=2, padding=1)),
            )
        )
        self.scratch = _Fusion(c, features)
        self.head = nn.Sequential(
            nn.Conv2d(features, features // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(features // 2, a.dpt_last, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(a.dpt_last, out, 1),
        )

    def forward(self, levels: tuple[Tensor, ...], grid: tuple[int, int]) -> Tensor:
        """Patch tokens (B, N, C) per level, finest first, to (B, out, H, W)."""
        maps = [
            step(tokens.transpose(1, 2).unflatten(2, grid))
            for step, tokens in zip(self.act_postprocess, levels)
        ]
        return self.head(self.scratch(maps))


class _Fusion(nn.Module):
    """Sums the levels from coarse to fine. `layer_rn` names the first convolutions again: both
    names are in the files."""

    def __init__(self, channels: tuple[int, ...], features: int):
        super().__init__()
        first = [nn.Conv2d(c, features, 3, padding=1, bias=False) for c in channels]
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = first
        self.layer_rn = nn.ModuleList(first)
        self.refinenet1, self.refinenet2, self.refinenet3, self.refinenet4 = (
            _FusionBlock(features) for _ in channels
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        finest, fine, coarse, coarsest = (layer(x) for layer, x in zip(self.layer_rn, maps))
        path = self.refinenet4(coarsest, None)
        # A grid of odd size was rounded up by the coarsest level.
        path = path[..., : coarse.shape[-2], : coarse.shape[-1]]
        path = self.refinenet3(path, coarse)
        path = self.refinenet2(path, fine)
        return self.refinenet1(path, finest)


class _FusionBlock(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        self.resConfUnit1 = _ResidualUnit(features)
        self.resConfUnit2 = _ResidualUnit(features)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        # The 1x1 convolution commutes with bilinear up-sampling and is cheaper before it.
        x = self.out_conv(self.resConfUnit2(x))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class _ResidualUnit(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x.relu()).relu())
