"""Endless training data: batches of clips through procedural worlds, with depth, poses and
correspondences.

`WorldSampler` draws a kind of world per batch, moves a camera through it, renders it, and returns a
`ClipBatch` with frames in the
network's order (reference first) and the true geometry. The same seed gives the same batch on every
device, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scal3r_ros.train.worlds.dice import Dice
from scal3r_ros.train.worlds.motion import MotionRange, clips
from scal3r_ros.train.worlds.photometry import develop
from scal3r_ros.train.worlds.rendering import focal_length, render
from scal3r_ros.train.worlds.scenes import build_scene
from scal3r_ros.train.worlds.textures import TexturePool, make_texture_pool

TRAIN_SEEDS = 0
VALIDATION_SEEDS = 500_000_000
"""Seeds of the scores shown while training."""
HELD_OUT_SEEDS = 1_000_000_000
"""Seeds from here on, of worlds and of texture pools, belong to evaluation and are never trained
on."""

KIND_WEIGHTS = {"room": 0.3, "corridor": 0.2, "street": 0.15, "clutter": 0.25, "terrain": 0.1}
_KIND_SCALE = {"room": 1.0, "corridor": 1.0, "street": 1.5, "clutter": 1.0, "terrain": 1.0}
"""Factor on the translation of a kind, about the ratio of typical distances."""
_FIELD_OF_VIEW = (0.785, 1.745)
"""Horizontal, radians: 45 to 100 degrees."""


@dataclass(frozen=True)
class ClipBatch:
    """W clips of S frames.

    images: (W, S, 3, H, W') in [0, 1]. depth: (W, S, H, W') z-depth in metres; solid: same shape,
    False for sky.
    T_world_camera: (W, S, 4, 4). focal: (W,) pixels, principal point in the middle.
    """

    images: Tensor
    depth: Tensor
    solid: Tensor
    T_world_camera: Tensor
    focal: Tensor

    def frames(self, index: Tensor) -> ClipBatch:
        """Pick frames by position; index: (F,), or (W, F) to pick differently per clip."""
        if index.ndim == 1:
            return replace(self, **{k: getattr(self, k)[:, index] for k in _PER_FRAME})
        rows = torch.arange(len(index), device=index.device)[:, None]
        return replace(self, **{k: getattr(self, k)[rows, index] for k in _PER_FRAME})

    def clips(self, which: slice) -> ClipBatch:
        """Some of the clips."""
        return ClipBatch(*(getattr(self, k)[which] for k in (*_PER_FRAME, "focal")))

    def to(self, device: torch.device | str) -> ClipBatch:
        """Move all tensors."""
        return ClipBatch(*(getattr(self, k).to(device) for k in (*_PER_FRAME, "focal")))

    def mirrored(self) -> ClipBatch:
        """The worlds seen in a mirror at x = 0, which is exact: images flip, t_x, and rotations
        about y and z change sign."""
        sign = torch.tensor([-1.0, 1.0, 1.0, 1.0], device=self.images.device)
        T = self.T_world_camera * sign[:, None] * sign
        return ClipBatch(
            self.images.flip(-1), self.depth.flip(-1), self.solid.flip(-1), T, self.focal
        )

    @staticmethod
    def concatenate(batches: list[ClipBatch]) -> ClipBatch:
        """Join batches of equal shape along the clips."""
        return ClipBatch(
            *(torch.cat([getattr(b, k) for b in batches]) for k in (*_PER_FRAME, "focal"))
        )


_PER_FRAME = ("images", "depth", "solid", "T_world_camera")


@dataclass(frozen=True)
class ClipSettings:
    """What a batch looks like. size: (height, width) pixels. parallax: factor range on translation.
    turn: factor range on rotation."""

    size: tuple[int, int] = (42, 56)
    frames: int = 4
    parallax: tuple[float, float] = (1.0, 3.0)
    turn: tuple[float, float] = (0.4, 1.0)
    sub_rays: int = 2
    photometric: float = 1.0


class WorldSampler:
    """Batches by seed. textures: a pool, of the training or of the held-out seeds."""

    def __init__(self, textures: TexturePool, device: torch.device | str = "cpu"):
        self.textures = textures.to(device)
        self.device = torch.device(device)

    @classmethod
    def training(cls, textures: int = 320, device: torch.device | str = "cpu") -> WorldSampler:
        """Worlds to train on."""
        return cls(make_texture_pool(TRAIN_SEEDS, textures), device)

    @classmethod
    def validation(cls, textures: int = 120, device: torch.device | str = "cpu") -> WorldSampler:
        """Worlds for the scores shown while training."""
        return cls(make_texture_pool(VALIDATION_SEEDS, textures), device)

    @classmethod
    def held_out(cls, textures: int = 160, device: torch.device | str = "cpu") -> WorldSampler:
        """Worlds with textures that no training run sees; use it with seeds from HELD_OUT_SEEDS
        on."""
        return cls(make_texture_pool(HELD_OUT_SEEDS, textures), device)

    def batch(
        self, seed: int, worlds: int, settings: ClipSettings, kind: str | None = None
    ) -> ClipBatch:
        """Draw `worlds` clips, in the order of time. One kind of world per batch, drawn unless
        given."""
        dice = Dice(seed)
        drawn = dice.weighted(KIND_WEIGHTS)
        kind = kind or drawn
        motion = _motion(settings, kind, dice)
        T = clips(worlds, settings.frames, dice, motion)
        fov = dice.uniform(worlds, low=_FIELD_OF_VIEW[0], high=_FIELD_OF_VIEW[1])
        focal = focal_length(fov, settings.size[1])
        scene = build_scene(kind, T[..., :3, 3], dice, self.textures).to(self.device)
        image = render(
            scene,
            self.textures,
            T.to(self.device),
            focal.to(self.device),
            settings.size,
            settings.sub_rays,
        )
        rgb = develop(image.rgb, dice, settings.photometric)
        return ClipBatch(rgb, image.depth, image.solid, T.to(self.device), focal.to(self.device))


def _motion(settings: ClipSettings, kind: str, dice: Dice) -> MotionRange:
    """One draw of how strongly the clips of a batch move."""
    parallax = (
        float(dice.uniform(low=settings.parallax[0], high=settings.parallax[1])) * _KIND_SCALE[kind]
    )
    turn = float(dice.uniform(low=settings.turn[0], high=settings.turn[1]))
    base = MotionRange()
    return MotionRange(
        tuple(parallax * v for v in base.translation), tuple(turn * v for v in base.rotation)
    )


def reference_first(frames: int) -> Tensor:
    """The network's order of a chunk: the middle frame, ceil(S / 2) - 1, then the others in
    order."""
    middle = (frames + 1) // 2 - 1
    return torch.tensor([middle, *(i for i in range(frames) if i != middle)])


def relative_to_reference(T_world_camera: Tensor) -> Tensor:
    """World-to-camera transforms (W, S, 4, 4) in the coordinates of the first frame."""
    return rigid_inverse(T_world_camera) @ T_world_camera[:, :1]


def rigid_inverse(T: Tensor) -> Tensor:
    """Inverse of (..., 4, 4) rigid transforms."""
    rotation = T[..., :3, :3].transpose(-1, -2)
    inverse = T.clone()
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ T[..., :3, 3:])[..., 0]
    return inverse


def camera_points(depth: Tensor, focal: Tensor) -> Tensor:
    """Points (W, S, H, W', 3) in each camera's own frame of z-depth (W, S, H, W')."""
    height, width = depth.shape[-2:]
    y = (torch.arange(height, device=depth.device) + 0.5 - height / 2)[:, None] / focal[
        :, None, None, None
    ]
    x = (torch.arange(width, device=depth.device) + 0.5 - width / 2) / focal[:, None, None, None]
    return torch.stack([x * depth, y * depth, depth], -1)


@dataclass(frozen=True)
class Correspondences:
    """Where the centre of every patch of every frame lies in every other frame.

    position: (W, S, S, P, 2), (row, column) in patch units, frame a's patch p seen in frame b at
    [w, a, b, p]; patch k spans k-0.5 to k+0.5.
    visible: (W, S, S, P) bool: in front of camera b, inside its image, not hidden by something
    nearer. False for a = b.
    """

    position: Tensor
    visible: Tensor


def correspondences(batch: ClipBatch, patch: int) -> Correspondences:
    """True matches of all ordered frame pairs, with occlusion checked against the rendered
    depth."""
    worlds, frames, height, width = batch.depth.shape
    centre = patch // 2
    points = camera_points(batch.depth, batch.focal)[:, :, centre::patch, centre::patch]
    solid = batch.solid[:, :, centre::patch, centre::patch].flatten(2)
    points = points.reshape(worlds, frames, -1, 3)
    T = batch.T_world_camera
    T_b_a = rigid_inverse(T)[:, None] @ T[:, :, None]  # (W, a, b, 4, 4)
    seen = points[:, :, None] @ T_b_a[..., :3, :3].transpose(-1, -2) + T_b_a[..., None, :3, 3]
    z = seen[..., 2].clamp(min=1e-3)
    pixel = seen[..., :2] / z[..., None] * batch.focal[:, None, None, None, None]
    pixel = pixel + torch.tensor([width / 2, height / 2], device=z.device)
    inside = (
        (pixel > 0).all(-1)
        & (pixel[..., 0] < width)
        & (pixel[..., 1] < height)
        & (seen[..., 2] > 0.02)
    )
    column = pixel[..., 0].long().clamp(0, width - 1)
    row = pixel[..., 1].long().clamp(0, height - 1)
    flat = batch.depth.flatten(2)[:, None].expand(-1, frames, -1, -1)
    rendered = flat.gather(3, (row * width + column))
    unhidden = z < 1.08 * rendered + 0.03
    other = ~torch.eye(frames, dtype=torch.bool, device=z.device)[:, :, None]
    position = pixel.flip(-1) / patch - 0.5
    return Correspondences(position, inside & unhidden & other & solid[:, :, None])
