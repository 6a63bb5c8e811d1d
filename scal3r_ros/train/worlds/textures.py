"""A pool of tileable surface textures with mip levels.

Every texture is a square of 8-bit RGB texels that repeats without a seam. The pool stores all of
them, every mip level one after the other, in one flat array, so that a renderer samples any texel
of any texture with one gather.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 128
"""Edge of the finest level in texels."""

LEVELS = 8
"""Mip levels, 128 down to 1 texel."""

SURFACE_KINDS = (
    "fractal",
    "bricks",
    "planks",
    "tiles",
    "stripes",
    "blots",
    "cobbles",
    "panels",
    "plain",
    "speckle",
)
FACADE, SKY = "facade", "sky"


@dataclass(frozen=True)
class TexturePool:
    """Textures and where their kinds lie.

    texels: (T * texels_per_texture, 3) uint8, all mip levels of texture 0, then of texture 1, ...
    surfaces, facades, skies: index ranges [first, last) of the three groups of textures.
    """

    texels: Tensor
    surfaces: tuple[int, int]
    facades: tuple[int, int]
    skies: tuple[int, int]

    def to(self, device: torch.device | str) -> TexturePool:
        """Return the pool with its texels on `device`."""
        return TexturePool(self.texels.to(device), self.surfaces, self.facades, self.skies)


def level_offsets() -> list[int]:
    """Start of every mip level inside one texture, and the texels of one texture as the last
    entry."""
    offsets = [0]
    for level in range(LEVELS):
        offsets.append(offsets[-1] + (SIZE >> level) ** 2)
    return offsets


def make_texture_pool(seed: int, count: int = 320) -> TexturePool:
    """Make `count` textures from `seed`: five sixths surfaces, the rest facades and skies, on the
    CPU."""
    generator = torch.Generator().manual_seed(seed)
    facades, skies = max(1, count // 9), max(1, count // 18)
    surfaces = count - facades - skies
    images = [_texture(SURFACE_KINDS[i % len(SURFACE_KINDS)], generator) for i in range(surfaces)]
    images += [_texture(FACADE, generator) for _ in range(facades)]
    images += [_texture(SKY, generator) for _ in range(skies)]
    finest = torch.stack(images).clamp(0.0, 1.0)
    return TexturePool(
        pyramid(finest), (0, surfaces), (surfaces, surfaces + facades), (surfaces + facades, count)
    )


def pyramid(finest: Tensor) -> Tensor:
    """All mip levels of (T, 3, SIZE, SIZE) images, as flat 8-bit texels."""
    levels, image = [], finest
    for _ in range(LEVELS):
        levels.append(image.permute(0, 2, 3, 1).reshape(len(finest), -1, 3))
        image = torch.nn.functional.avg_pool2d(image, 2) if image.shape[-1] > 1 else image
    return (torch.cat(levels, 1) * 255.0).round().to(torch.uint8).reshape(-1, 3)


def _texture(kind: str, generator: torch.Generator) -> Tensor:
    """One (3, SIZE, SIZE) texture of a kind, values about 0 to 1."""
    paint = {
        "fractal": _fractal, "bricks": _bricks, "planks": _planks, "tiles": _tiles, "stripes":
        _stripes, "blots": _blots,
        "cobbles": _cobbles, "panels": _panels, "plain": _plain, "speckle": _speckle, FACADE:
        _facade, SKY: _sky,
    }[kind]  # fmt: skip
    image = paint(generator)
    if kind == SKY:
        return image
    grime = 1.0 + _uniform(generator, 0.05, 0.25) * _noise(generator, 2.0)
    return image * grime


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _colour(generator: torch.Generator, saturation: float = 0.35) -> Tensor:
    """A (3, 1, 1) colour pulled towards grey, brightness 0.15 to 0.85."""
    colour = torch.rand(3, generator=generator)
    grey = torch.full((3,), _uniform(generator, 0.15, 0.85))
    mix = _uniform(generator, 0.05, saturation)
    return (grey + mix * (colour - colour.mean())).clamp(0.03, 0.97).view(3, 1, 1)


def _noise(generator: torch.Generator, exponent: float, stretch: float = 1.0) -> Tensor:
    """Tileable (SIZE, SIZE) noise with spectrum 1/f^exponent (amplitude exponent/2), zero mean,
    unit deviation."""
    fy = torch.fft.fftfreq(SIZE).view(-1, 1) * SIZE * stretch
    fx = torch.fft.rfftfreq(SIZE).view(1, -1) * SIZE
    amplitude = (fy * fy + fx * fx).clamp(min=1.0).pow(-exponent / 2)
    amplitude[0, 0] = 0.0
    phase = torch.rand(amplitude.shape, generator=generator) * 2 * math.pi
    image = torch.fft.irfft2(torch.polar(amplitude, phase), s=(SIZE, SIZE))
    return (image - image.mean()) / image.std().clamp(min=1e-6)


def _ramp(value: Tensor, generator: torch.Generator, colours: int = 3) -> Tensor:
    """Colour a (SIZE, SIZE) field by interpolating between random colours over about two
    deviations."""
    stops = [_colour(generator) for _ in range(colours)]
    place = ((value + 1.7) / 3.4).clamp(0, 1) * (colours - 1)
    image = torch.zeros(3, SIZE, SIZE)
    for i, stop in enumerate(stops):
        image = image + stop * (1.0 - (place - i).abs()).clamp(min=0)
    return image


def _grid() -> tuple[Tensor, Tensor]:
    axis = (torch.arange(SIZE) + 0.5) / SIZE
    return axis.view(-1, 1).expand(SIZE, SIZE), axis.view(1, -1).expand(SIZE, SIZE)


def _cells(rows: Tensor, columns: Tensor, generator: torch.Generator, spread: float) -> Tensor:
    """A random brightness factor for every cell of a grid given by integer row and column
    images."""
    table = 1.0 + spread * (torch.rand(64, 64, generator=generator) - 0.5) * 2
    return table[rows.long() % 64, columns.long() % 64]


def _fractal(generator: torch.Generator) -> Tensor:
    return _ramp(
        _noise(generator, _uniform(generator, 1.6, 2.8)), generator, _integer(generator, 2, 4)
    )


def _bricks(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    rows, columns = 2 * _integer(generator, 2, 6), _integer(generator, 2, 6)
    row = torch.floor(y * rows)
    shifted = (x + (row % 2) * 0.5 / columns) % 1.0
    column = torch.floor(shifted * columns)
    joint = ((y * rows) % 1.0 < 0.12) | ((shifted * columns) % 1.0 < 0.12 * columns / rows * 2)
    body = (
        _colour(generator, 0.5)
        * _cells(row, column, generator, 0.35)
        * (1 + 0.12 * _noise(generator, 1.2))
    )
    return torch.where(joint, _colour(generator, 0.1) * (1 + 0.1 * _noise(generator, 1.0)), body)


def _planks(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    planks = _integer(generator, 3, 8)
    column = torch.floor(x * planks)
    grain = _noise(generator, 1.8, stretch=_uniform(generator, 5.0, 12.0))
    body = _ramp(grain, generator, 2) * _cells(torch.zeros_like(column), column, generator, 0.3)
    gap = (x * planks) % 1.0 < 0.08
    image = torch.where(gap, body * 0.35, body)
    return image if torch.rand((), generator=generator) < 0.5 else image.transpose(1, 2)


def _tiles(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    count = 2 * _integer(generator, 1, 4)
    row, column = torch.floor(y * count), torch.floor(x * count)
    odd = ((row + column) % 2).bool()
    body = torch.where(odd, _colour(generator), _colour(generator)) * _cells(
        row, column, generator, 0.2
    )
    joint = ((y * count) % 1.0 < 0.06) | ((x * count) % 1.0 < 0.06)
    return torch.where(joint, _colour(generator, 0.1), body * (1 + 0.1 * _noise(generator, 1.6)))


def _stripes(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    warp = _uniform(generator, 0.0, 0.6) * _noise(generator, 3.0)
    phase = _integer(generator, 0, 5) * x + _integer(generator, 1, 5) * y
    wave = torch.sin(2 * math.pi * phase + warp) * _uniform(generator, 1.0, 4.0)
    return _ramp(
        wave.clamp(-1.7, 1.7) + 0.2 * _noise(generator, 1.5), generator, _integer(generator, 2, 3)
    )


def _blots(generator: torch.Generator) -> Tensor:
    image = _colour(generator) * torch.ones(3, SIZE, SIZE)
    for _ in range(_integer(generator, 2, 4)):
        mask = torch.sigmoid(
            12 * (_noise(generator, _uniform(generator, 2.2, 3.2)) - _uniform(generator, 0.2, 1.2))
        )
        image = image * (1 - mask) + _colour(generator) * mask
    return image * (1 + 0.08 * _noise(generator, 1.0))


def _cobbles(generator: torch.Generator) -> Tensor:
    y, x = _grid()
    count = _integer(generator, 12, 48)
    centres = torch.rand(count, 2, generator=generator)
    dy = (y.reshape(1, -1) - centres[:, :1] + 0.5) % 1.0 - 0.5
    dx = (x.reshape(1, -1) - centres[:, 1:] + 0.5) % 1.0 - 0.5
    near, owner = (dy * dy + dx * dx).sqrt().topk(2, dim=0, largest=False)
    shade = (1 + 0.4 * (torch.rand(count, generator=generator) - 0.5) * 2)[owner[0]].view(
        SIZE, SIZE
    )
    edge = ((near[1] - near[0]) * math.sqrt(count) * 4).clamp(0.25, 1.0).view(SIZE, SIZE)
    return _colour(generator) * shade * edge * (1 + 0.15 * _noise(generator, 1.4))


def _panels(generator: torch.Generator) -> Tensor:
    """Overlapping rectangles of many colours: shelves, posters, packaging."""
    image = _colour(generator) * torch.ones(3, SIZE, SIZE)
    for _ in range(_integer(generator, 10, 30)):
        height, width = _integer(generator, 5, 60), _integer(generator, 5, 45)
        top, left = _integer(generator, 0, SIZE - 1), _integer(generator, 0, SIZE - 1)
        rows = (torch.arange(height) + top) % SIZE
        columns = (torch.arange(width) + left) % SIZE
        image[:, rows.view(-1, 1), columns.view(1, -1)] = _colour(generator, 0.6)
    return image * (1 + 0.06 * _noise(generator, 1.2))


def _plain(generator: torch.Generator) -> Tensor:
    return _colour(generator, 0.2) * (1 + _uniform(generator, 0.01, 0.05) * _noise(generator, 2.0))


def _speckle(generator: torch.Generator) -> Tensor:
    return _colour(generator) * (
        1 + _uniform(generator, 0.15, 0.4) * _noise(generator, _uniform(generator, 0.6, 1.3))
    )


def _facade(generator: torch.Generator) -> Tensor:
    """Walls with windows, some lit; one texture is a few storeys."""
    y, x = _grid()
    rows, columns = _integer(generator, 2, 5), _integer(generator, 2, 6)
    fy, fx = (y * rows) % 1.0, (x * columns) % 1.0
    margin_y, margin_x = _uniform(generator, 0.12, 0.3), _uniform(generator, 0.12, 0.35)
    inside = (fy > margin_y) & (fy < 1 - margin_y) & (fx > margin_x) & (fx < 1 - margin_x)
    bars = ((fx - 0.5).abs() < 0.03) | ((fy - 0.5).abs() < 0.03)
    cells = _cells(torch.floor(y * rows), torch.floor(x * columns), generator, 0.9)
    glass = torch.tensor([0.18, 0.22, 0.28]).view(3, 1, 1) * cells * (1.2 - 0.4 * fy)
    wall = (
        _bricks(generator)
        if torch.rand((), generator=generator) < 0.4
        else _fractal(generator) * 0.5 + 0.5 * _colour(generator)
    )
    frame = _colour(generator, 0.15)
    return torch.where(inside, torch.where(bars, frame, glass), wall)


def _sky(generator: torch.Generator) -> Tensor:
    blue = torch.tensor([0.45, 0.6, 0.85]).view(3, 1, 1) + _uniform(generator, -0.12, 0.1)
    cloud = torch.tensor([0.92, 0.92, 0.93]).view(3, 1, 1) * _uniform(generator, 0.75, 1.05)
    cover = torch.sigmoid(2.0 * (_noise(generator, 3.0) + _uniform(generator, -1.5, 1.5)))
    return blue * (1 - cover) + cloud * cover
