"""What a real camera does to an image: exposure and white-balance drift, blur, noise,
8-bit levels."""

from __future__ import annotations

import torch
from torch import Tensor

from scal3r_ros.train.worlds.dice import Dice


def develop(rgb: Tensor, dice: Dice, strength: float = 1.0) -> Tensor:
    """Turn rendered colours (W, S, 3, H, W') in [0, 1] into camera images in [0, 1], multiples of
    1/255.

    Exposure and white balance differ between worlds and drift along a clip; `strength` 0 leaves
    only rounding.
    """
    worlds, frames = rgb.shape[:2]
    drift = torch.cumsum(0.03 * dice.normal(worlds, frames), 1)
    metered = 0.42 / rgb.mean((1, 2, 3, 4)).clamp(min=0.1).cpu()[:, None]
    exposure = metered * torch.exp(strength * (0.2 * dice.normal(worlds, 1) + drift))
    balance = torch.exp(
        strength
        * (
            0.06 * dice.normal(worlds, 1, 3)
            + torch.cumsum(0.008 * dice.normal(worlds, frames, 3), 1)
        )
    )
    gain = (exposure[..., None] * balance)[..., None, None].to(rgb.device)
    gamma = torch.exp(strength * 0.2 * dice.normal(worlds, 1, 1, 1, 1)).to(rgb.device)
    image = (rgb.clamp(min=1e-4) ** gamma) * gain
    image = _blur(
        image, strength * (dice.uniform(worlds, frames) - 0.6).clamp(min=0).to(rgb.device)
    )
    noise = strength * 0.02 * dice.uniform(worlds, 1, 1, 1, 1).to(rgb.device)
    return quantised(image, noise, dice)


def quantised(image: Tensor, noise: Tensor | float, dice: Dice) -> Tensor:
    """Add Gaussian noise of a standard deviation, clip, and round to multiples of 1/255."""
    seed = int(dice.integers(0, 2**31 - 1))
    generator = torch.Generator(image.device).manual_seed(seed)
    grain = torch.randn(image.shape, generator=generator, device=image.device)
    return ((image + noise * grain).clamp(0, 1) * 255).round() / 255


def _blur(image: Tensor, amount: Tensor) -> Tensor:
    """Mix with a 3x3 mean, per frame; amount: (W, S) in [0, 1]."""
    flat = torch.nn.functional.pad(image.flatten(0, 1), (1, 1, 1, 1), mode="replicate")
    mean = torch.nn.functional.avg_pool2d(flat, 3, 1).view_as(image)
    return image + amount[..., None, None, None] * (mean - image)
