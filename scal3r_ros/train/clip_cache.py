"""Rendered tours on disk: made once, read many times with other frames, crops and exposures.

Rendering was the bottleneck of training on CPU cores. A cache is a folder of files, one world each,
that grows while runs read it; what a camera adds (exposure, colour, blur, noise) and the zoom are
drawn anew at every reading.

    python -m scal3r_ros.train.clip_cache FOLDER --worlds 200 --photographs PHOTOS
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from scal3r_ros.train.worlds.clips import (
    TRAIN_SEEDS,
    ClipBatch,
    ClipSettings,
    WorldSampler,
)
from scal3r_ros.train.worlds.dice import Dice
from scal3r_ros.train.worlds.photographs import with_photographs
from scal3r_ros.train.worlds.photometry import develop
from scal3r_ros.train.worlds.tour_clips import rendered_tour

CLIP_SIZE = (132, 176)
FRAMES, STRIDE = 46, 2
"""Frames of a cached tour, and how many of the tour's frames lie between two of them."""
_FIELD_OF_VIEW = (0.95, 1.7)
_CACHE_SEEDS = 400_000_000
"""Offset of the seeds of cached worlds."""
_NARROWEST = 0.85
"""Share of the width of an image that a crop keeps at least."""


def render_cache(folder: Path, worlds: int, sampler: WorldSampler, first: int = 0) -> None:
    """Render worlds `first` to `first + worlds` into a folder; those that are there already are
    left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = ClipSettings(size=CLIP_SIZE, frames=FRAMES, sub_rays=1)
    for number in range(first, first + worlds):
        path = folder / f"tour-{number:06}.pt"
        if path.exists():
            continue
        seed = TRAIN_SEEDS + _CACHE_SEEDS + number
        clip = rendered_tour(
            Dice(seed), seed, sampler, settings, STRIDE, fields_of_view=_FIELD_OF_VIEW
        )
        write_clip(path, clip)


def write_clip(path: Path, clip: ClipBatch) -> None:
    """One world's frames: colours as bytes, depth in half precision."""
    content = {
        "images": (clip.images[0] * 255).round().to(torch.uint8),
        "depth": clip.depth[0].clamp(max=6e4).half(),
        "solid": clip.solid[0],
        "T_world_camera": clip.T_world_camera[0],
        "focal": clip.focal,
    }
    temporary = path.with_suffix(f".{os.getpid()}")
    torch.save(content, temporary)
    os.replace(temporary, path)


class ClipCache:
    """Clips of the files in a folder, also of those that appear while a run reads it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths = self._listed()
        self.drawn = 0

    def _listed(self) -> list[Path]:
        paths = sorted(self.folder.glob("*.pt"))
        if not paths:
            raise ValueError(
                f"no rendered worlds in {self.folder}; make some with "
                f"python -m scal3r_ros.train.clip_cache {self.folder}"
            )
        return paths

    def draw(
        self,
        choose: Callable[[int, torch.Generator], torch.Tensor],
        size: tuple[int, int],
        generator: torch.Generator,
    ) -> ClipBatch:
        """One world as a camera sees it: the frames that `choose` takes of so many, in an order of
        time, at a size, zoomed and developed."""
        self.drawn += 1
        if self.drawn % 100 == 0:
            self.paths = self._listed()
        stored = torch.load(
            self.paths[_integer(len(self.paths), generator)], mmap=True, weights_only=True
        )
        index = choose(len(stored["images"]), generator)
        if _integer(2, generator):
            index = index.flip(0)
        clip = ClipBatch(
            *(stored[k][index][None] for k in ("images", "depth", "solid", "T_world_camera")),
            stored["focal"],
        )
        clip = replace(clip, images=clip.images.float() / 255)
        clip = zoomed(clip, size, _share(generator))
        seed = _integer(2**31 - 1, generator)
        return replace(clip, images=develop(clip.images, Dice(seed)))


def zoomed(clip: ClipBatch, size: tuple[int, int], share: float) -> ClipBatch:
    """The middle of a clip's images, a share of their width, at another size; depth is taken from
    the nearest pixel."""
    height, width = clip.depth.shape[-2:]
    rows, columns = round(share * height), round(share * width)
    top, left = (height - rows) // 2, (width - columns) // 2
    images = clip.images[..., top : top + rows, left : left + columns]
    frames = images.shape[1]
    images = F.interpolate(images.flatten(0, 1), size=size, mode="bilinear", antialias=True)
    row = top + ((torch.arange(size[0]) + 0.5) * rows / size[0]).long()[:, None]
    column = left + ((torch.arange(size[1]) + 0.5) * columns / size[1]).long()
    return ClipBatch(
        images.clamp(0, 1).unflatten(0, (-1, frames)),
        clip.depth[..., row, column].float(),
        clip.solid[..., row, column],
        clip.T_world_camera,
        clip.focal * size[1] / columns,
    )


def _share(generator: torch.Generator) -> float:
    return 1 - (1 - _NARROWEST) * float(torch.rand((), generator=generator))


def _integer(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))


def main() -> int:
    """Render worlds into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first world")
    parser.add_argument("--photographs", type=Path, default=None, help="folder of images")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sampler = WorldSampler.training()
    if arguments.photographs is not None:
        pool = with_photographs(sampler.textures, arguments.photographs, arguments.first)
        sampler = WorldSampler(pool)
    render_cache(arguments.folder, arguments.worlds, sampler, arguments.first)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
