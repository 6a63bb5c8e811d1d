"""Dense heads: a value and a confidence for every pixel of every frame.

A head works in two steps. `project` reduces one collected layer to the head's own channels as soon
as the layer is done, so that the wide features need not be kept; `forward` turns the projections of
all levels into maps, and is called for a few frames at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.guided_head import GuidedHead

_EPS = 1e-5
_POSITION_WEIGHT = 0.1
_POSITION_BASE = 100.0


class DptHead(nn.Module):
    """Dense prediction transformer head: four levels fused from coarse to fine."""

    def __init__(self, a: Architecture, out_channels: int):
        super().__init__()
        self.patch_size = a.patch_size
        channels, features = a.dpt_out_channels, a.dpt_features
        self.norm = nn.LayerNorm(2 * a.embed_dim, eps=_EPS)
        self.projects = nn.ModuleList(nn.Conv2d(2 * a.embed_dim, c, 1) for c in channels)
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            )
        )
        self.scratch = _Fusion(channels, features, a.dpt_head_hidden, out_channels)

    def project(self, level: int, feature: Tensor, grid: tuple[int, int]) -> tuple[Tensor, ...]:
        """Patch features (N, gh * gw, 2C) of one level to (N, channels, gh, gw)."""
        x = self.norm(feature).transpose(1, 2).unflatten(2, grid)
        x = self.projects[level](x)
        return (x + _position_map(x, grid[1] / grid[0]),)

    def forward(self, levels: tuple[Tensor, ...]) -> Tensor:
        """Projections of the four levels to raw maps (N, out_channels, H, W)."""
        grid = levels[0].shape[-2:]
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        pyramid = [resize(x) for resize, x in zip(self.resize_layers, levels)]
        x = self.scratch.fuse(pyramid)
        x = _upsample(self.scratch.output_conv1(x), size)
        x = x + _position_map(x, size[1] / size[0])
        return self.scratch.output_conv2(x)


class LinearHead(nn.Module):
    """One linear layer per patch on the last collected layer: the light head of small networks."""

    def __init__(self, a: Architecture, out_channels: int):
        super().__init__()
        self.patch_size = a.patch_size
        self.last = len(a.intermediate_layers) - 1
        self.norm = nn.LayerNorm(2 * a.embed_dim, eps=_EPS)
        self.linear = nn.Linear(2 * a.embed_dim, out_channels * a.patch_size**2)

    def project(self, level: int, feature: Tensor, grid: tuple[int, int]) -> tuple[Tensor, ...]:
        """Patch features (N, gh * gw, 2C) to (N, out * p * p, gh, gw); only the last level
        counts."""
        if level != self.last:
            return ()
        return (self.linear(self.norm(feature)).transpose(1, 2).unflatten(2, grid),)

    def forward(self, levels: tuple[Tensor, ...]) -> Tensor:
        return F.pixel_shuffle(levels[0], self.patch_size)


_KINDS: dict[str, type[DptHead] | type[LinearHead] | type[GuidedHead]] = {
    "dpt": DptHead,
    "linear": LinearHead,
    "guided": GuidedHead,
}


def dense_head(a: Architecture, out_channels: int) -> DptHead | LinearHead | GuidedHead:
    """The kind of head that the architecture names."""
    return _KINDS[a.dense_head](a, out_channels)


def depth_and_confidence(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Raw maps (N, 2, H, W) to z-depth and confidence, (N, H, W) each; confidence above 1."""
    return raw[:, 0].exp(), 1 + raw[:, 1].exp()


def points_and_confidence(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Raw maps (N, 4, H, W) to points (N, H, W, 3) in the reference camera, and confidence."""
    value = raw[:, :3].permute(0, 2, 3, 1)
    return value.sign() * value.abs().expm1(), 1 + raw[:, 3].exp()


class _ResidualUnit(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()  # the skip path carries the rectified input too
        return x + self.conv2(self.conv1(x).relu())


class _FusionBlock(nn.Module):
    def __init__(self, features: int, with_skip: bool):
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        if with_skip:
            self.resConfUnit1 = _ResidualUnit(features)
        self.resConfUnit2 = _ResidualUnit(features)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        # The 1x1 convolution commutes with bilinear up-sampling and is cheaper before it.
        return _upsample(self.out_conv(self.resConfUnit2(x)), size)


class _Fusion(nn.Module):
    def __init__(self, channels: tuple[int, ...], features: int, hidden: int, out: int):
        super().__init__()
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(c, features, 3, padding=1, bias=False) for c in channels
        )
        self.refinenet1 = _FusionBlock(features, True)
        self.refinenet2 = _FusionBlock(features, True)
        self.refinenet3 = _FusionBlock(features, True)
        self.refinenet4 = _FusionBlock(features, False)
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, out, 1)
        )

    def fuse(self, pyramid: list[Tensor]) -> Tensor:
        r0, r1, r2, r3 = (
            layer(x)
            for layer, x in zip(
                (self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn), pyramid
            )
        )
        x = self.refinenet4(r3, None, r2.shape[-2:])
        x = self.refinenet3(x, r2, r1.shape[-2:])
        x = self.refinenet2(x, r1, r0.shape[-2:])
        return self.refinenet1(x, r0, (2 * r0.shape[-2], 2 * r0.shape[-1]))


def _upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _position_map(x: Tensor, aspect: float) -> Tensor:
    """Weighted sinusoidal embedding of the pixels of `x` (N, D, h, w), (D, h, w) float32; `aspect`
    is image width over height."""
    channels, height, width = x.shape[1:]
    diagonal = (aspect**2 + 1) ** 0.5
    count = channels // 4
    exponent = torch.arange(count, device=x.device, dtype=torch.float64) / count
    omega = _POSITION_BASE**-exponent

    def waves(span: float, size: int) -> Tensor:
        end = span * (size - 1) / size
        place = torch.linspace(-end, end, size, device=x.device, dtype=torch.float32)
        angle = omega[:, None] * place.double()
        return _POSITION_WEIGHT * torch.cat((angle.sin(), angle.cos())).float()

    columns = waves(aspect / diagonal, width)[:, None, :].expand(-1, height, -1)
    rows = waves(1 / diagonal, height)[:, :, None].expand(-1, -1, width)
    return torch.cat((columns, rows))
