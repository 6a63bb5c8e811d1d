"""Ray casting of batches of scenes: colour and z-depth, with texture mip levels and averaged sub-
rays.

Rays have camera z = 1, so the ray parameter is the z-depth. Runs on any torch device.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from scal3r_ros.train.worlds.layouts import BOX, CYLINDER, ENCLOSURE, SPHERE, TERRAIN
from scal3r_ros.train.worlds.scenes import Scene
from scal3r_ros.train.worlds.texture_sampling import coarse_variation, sample_texture
from scal3r_ros.train.worlds.textures import TexturePool

_FAR = 1e4
_MARCH = (0.3, 70.0, 40)
"""Nearest and farthest distance and number of steps of the search for the terrain."""


class Rendering(NamedTuple):
    """rgb: (W, S, 3, H, W') in [0, 1]. depth: (W, S, H, W') z-depth in metres. solid: same shape,
    False for sky."""

    rgb: Tensor
    depth: Tensor
    solid: Tensor


class Hit(NamedTuple):
    depth: Tensor
    primitive: Tensor
    """(W, S, R) distance along the ray and index of the primitive that is hit first."""


def render(
    scene: Scene,
    pool: TexturePool,
    T_world_camera: Tensor,
    focal: Tensor,
    size: tuple[int, int],
    sub_rays: int = 2,
) -> Rendering:
    """Render S views of each of W worlds.

    T_world_camera: (W, S, 4, 4). focal: (W,) in pixels of the output, principal point in the
    middle. size: (height, width).
    sub_rays: rays per pixel edge that are averaged.
    """
    directions = ray_directions(T_world_camera[..., :3, :3], focal, size, sub_rays)
    origin = T_world_camera[..., :3, 3]
    hit = nearest_hit(scene, origin, directions)
    point = origin[:, :, None] + directions * hit.depth[..., None]
    colour, solid = _shade(scene, pool, hit, point, directions, 1.0 / (focal * sub_rays))
    return _average(colour, hit.depth, solid, size, sub_rays)


def ray_directions(rotation: Tensor, focal: Tensor, size: tuple[int, int], sub_rays: int) -> Tensor:
    """World directions with camera z = 1, (W, S, R, 3), R = sub-rays of all pixels in rows."""
    height, width = size
    rows = (torch.arange(height * sub_rays, device=focal.device) + 0.5) / sub_rays - height / 2
    columns = (torch.arange(width * sub_rays, device=focal.device) + 0.5) / sub_rays - width / 2
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    rays = torch.stack([x.reshape(-1), y.reshape(-1), torch.ones_like(x).reshape(-1)], -1)
    scaled = rays / torch.stack([focal, focal, torch.ones_like(focal)], -1)[:, None]
    return scaled[:, None] @ rotation.transpose(-1, -2)


def _local(vector: Tensor, yaw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Components of (..., 3) vectors in the axes of a primitive; yaw broadcasts with (...)."""
    cos, sin = torch.cos(yaw), torch.sin(yaw)
    x, z = vector[..., 0], vector[..., 2]
    return cos * x - sin * z, vector[..., 1], sin * x + cos * z


def nearest_hit(scene: Scene, origin: Tensor, directions: Tensor) -> Hit:
    """What rays from (W, S, 3) along (W, S, R, 3) meet first."""
    depth, index = _surroundings(scene, origin, directions)
    for w, s in itertools.product(*map(range, depth.shape[:2])):
        _meet_objects(scene, w, origin[w, s], directions[w, s], depth[w, s], index[w, s])
    return Hit(depth, index)


def _surroundings(scene: Scene, origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Depth and index of enclosures and terrains, with which every ray has to be tried."""
    best = torch.full(directions.shape[:3], _FAR, device=directions.device)
    index = torch.zeros(directions.shape[:3], dtype=torch.int64, device=directions.device)
    for i, shape in enumerate(scene.shape):
        if shape == TERRAIN:
            depth = _terrain_depth(
                scene.waves, scene.half[:, 0], scene.centre[:, 0], origin, directions
            )
        elif shape == ENCLOSURE:
            yaw = scene.yaw[:, i, None, None]
            offset = _local(origin[:, :, None] - scene.centre[:, i, None, None], yaw)
            half = scene.half[:, i, :, None, None].unbind(1)
            depth = _entry_depth(shape, offset, _local(directions, yaw), half)
        else:
            continue
        nearer = (depth > 1e-3) & (depth < best)
        best = torch.where(nearer, depth, best)
        index = torch.where(nearer, i, index)
    return best, index


def _meet_objects(
    scene: Scene, w: int, origin: Tensor, rays: Tensor, best: Tensor, index: Tensor
) -> None:
    """Put what rays (R, 3) of one view meet before `best` into `best` and `index`, in place."""
    offset = scene.centre[w] - origin
    near = _near(rays, offset, _reach(scene, w))
    for shape in (BOX, SPHERE, CYLINDER):
        objects = torch.tensor(
            [i for i, kind in enumerate(scene.shape) if kind == shape],
            dtype=torch.int64,
            device=rays.device,
        )
        row, ray = near[objects].nonzero(as_tuple=True)
        which = objects[row]
        yaw, half = scene.yaw[w, which], scene.half[w, which].unbind(-1)
        depth = _entry_depth(shape, _local(-offset[which], yaw), _local(rays[ray], yaw), half)
        depth = torch.where(depth > 1e-3, depth, _FAR)
        nearest = best.scatter_reduce(0, ray, depth, "amin")
        first = (depth == nearest[ray]) & (depth < best[ray])
        index[ray[first]] = len(scene.shape)
        index.scatter_reduce_(0, ray[first], which[first], "amin")
        best.copy_(nearest)


def _reach(scene: Scene, w: int) -> Tensor:
    """Radius of the sphere round every primitive of a world, (N,)."""
    half = scene.half[w]
    shape = torch.tensor(scene.shape, device=half.device)
    reach = torch.where(shape == CYLINDER, half[:, :2].norm(dim=-1), half.norm(dim=-1))
    return torch.where(shape == SPHERE, half[:, 0], reach)


def _near(rays: Tensor, offset: Tensor, reach: Tensor) -> Tensor:
    """Which rays (R, 3) may meet which spheres of radius `reach` (N,) at `offset` (N, 3), (N, R).
    Few do, and only they are worth a closer look."""
    distance = offset.norm(dim=-1)
    tangent = (distance**2 - reach**2).clamp(min=0).sqrt()
    bound = torch.where(distance > reach, tangent, -distance) - 1e-4 * distance
    aim = torch.nn.functional.normalize(rays, dim=-1)
    return offset @ aim.T >= bound[:, None]


def _entry_depth(shape: int, o: tuple, d: tuple, half: tuple) -> Tensor:
    """Where rays enter a primitive (leave it, for the enclosure); _FAR where they miss. Offsets,
    rays and half sizes by axis; they broadcast."""
    if shape == SPHERE:
        near, far = _quadratic(o, d, (0, 1, 2), half[0])
    elif shape == CYLINDER:
        near, far = _quadratic(o, d, (0, 2), half[0])
        low, high = _slab(o[1], d[1], half[1])
        near, far = torch.maximum(near, low), torch.minimum(far, high)
    else:
        near, far = _slab(o[0], d[0], half[0])
        for axis in (1, 2):
            low, high = _slab(o[axis], d[axis], half[axis])
            near, far = torch.maximum(near, low), torch.minimum(far, high)
        if shape == ENCLOSURE:
            return far
    return torch.where(near < far, near, _FAR)


def _slab(o: Tensor, d: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1.0 / torch.where(d.abs() < 1e-9, 1e-9, d)
    middle, reach = -o * inverse, inverse.abs() * half
    return middle - reach, middle + reach


def _quadratic(o: tuple, d: tuple, axes: tuple, radius: Tensor) -> tuple[Tensor, Tensor]:
    a = sum(d[i] * d[i] for i in axes) + 1e-12
    b = sum(o[i] * d[i] for i in axes)
    c = sum(o[i] * o[i] for i in axes) - radius * radius
    root = (b * b - a * c).clamp(min=0).sqrt()
    miss = b * b < a * c
    return torch.where(miss, _FAR, (-b - root) / a), torch.where(miss, -_FAR, (-b + root) / a)


def _terrain_height(waves: Tensor, ground: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Signed height y of the terrain (y down) under (x, z) (W, S, R); ground: (W,) its mean."""
    height = ground[:, None, None].expand_as(x)
    for k in range(waves.shape[1]):
        kx, kz, phase, amplitude = (waves[:, k, j, None, None] for j in range(4))
        height = height + amplitude * torch.sin(kx * x + kz * z + phase)
    return height


def _terrain_depth(
    waves: Tensor, half: Tensor, centre: Tensor, origin: Tensor, directions: Tensor
) -> Tensor:
    """First crossing of the terrain surface by stepping outwards and one secant step."""
    ground = centre[:, 1] + half[:, 1] - waves[..., 3].sum(1)
    near, far, steps = _MARCH
    best = torch.full(directions.shape[:3], _FAR, device=directions.device)
    before = torch.full_like(best, -1.0)
    last = 0.0
    for k in range(steps):
        t = near * (far / near) ** (k / (steps - 1))
        x = origin[:, :, None, 0] + t * directions[..., 0]
        y = origin[:, :, None, 1] + t * directions[..., 1]
        z = origin[:, :, None, 2] + t * directions[..., 2]
        below = y - _terrain_height(waves, ground, x, z)
        crossing = (below > 0) & (best == _FAR)
        share = before / (before - below).clamp(max=-1e-6)
        best = torch.where(crossing, last + (t - last) * share, best)
        before, last = below, t
    return best


def _shade(
    scene: Scene,
    pool: TexturePool,
    hit: Hit,
    point: Tensor,
    directions: Tensor,
    pixel_angle: Tensor,
) -> tuple[Tensor, Tensor]:
    """Colour (W, S, R, 3) and solidity (W, S, R) of what every ray hits."""
    worlds, views, rays = hit.primitive.shape
    flat = hit.primitive.reshape(worlds, -1)

    def of_primitive(values: Tensor) -> Tensor:
        tail = values.shape[2:]
        index = flat.reshape(worlds, -1, *([1] * len(tail))).expand(-1, -1, *tail)
        return values.gather(1, index).reshape(worlds, views, rays, *tail)

    shape = torch.tensor(scene.shape, device=flat.device)[hit.primitive]
    x, y, z = _rotated(point - of_primitive(scene.centre), of_primitive(scene.yaw))
    half = of_primitive(scene.half)
    axis, normal = _surface(shape, torch.stack([x, y, z], -1) / half)
    normal = _terrain_normal(scene, shape, point, normal)
    texture = of_primitive(scene.texture).gather(-1, _side(axis, y)[..., None])[..., 0]
    u, v = torch.where(axis == 0, z, x), torch.where(axis == 1, z, y)
    density = of_primitive(scene.texels_per_metre)
    shift = of_primitive(scene.shift)
    ray = torch.stack(_rotated(directions, of_primitive(scene.yaw)), -1)
    facing = (normal * ray).sum(-1).abs() / directions.norm(dim=-1)
    footprint = hit.depth * density * pixel_angle[:, None, None] / facing.clamp(min=0.25)
    u, v = u * density + shift[..., 0], v * density + shift[..., 1]
    colour = sample_texture(pool, texture, u, v, footprint)
    if bool(scene.macro.any()):
        colour = colour * coarse_variation(
            pool, texture, u, v, footprint, of_primitive(scene.macro)
        )
    lit = scene.ambient[:, None, None] + (1 - scene.ambient[:, None, None]) * (
        normal * _rotate_light(scene, hit, of_primitive)
    ).sum(-1).clamp(min=0)
    solid = ~(scene.sky[:, None, None] & (shape == ENCLOSURE) & ~((axis == 1) & (y > 0)))
    lit = torch.where(solid, lit, 1.0)
    return (colour * of_primitive(scene.tint) * lit[..., None]).clamp(0, 1), solid


def _rotate_light(scene: Scene, hit: Hit, of_primitive) -> Tensor:
    """Direction to the light in the axes of the primitive that each ray hits."""
    light = scene.light[:, None, None].expand(*hit.primitive.shape, 3)
    return torch.stack(_rotated(light, of_primitive(scene.yaw)), -1)


def _rotated(vector: Tensor, yaw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    cos, sin = torch.cos(yaw), torch.sin(yaw)
    x, z = vector[..., 0], vector[..., 2]
    return cos * x - sin * z, vector[..., 1], sin * x + cos * z


def _surface(shape: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Axis along which a texture is projected and outward normal, from the point in units of the
    half size."""
    magnitude = q.abs()
    cap = (shape == CYLINDER) & (magnitude[..., 1] > 0.999)
    sideways = (shape == CYLINDER) & ~cap
    magnitude[..., 1] = torch.where(cap, 9.0, torch.where(sideways, 0.0, magnitude[..., 1]))
    axis = torch.where(shape == TERRAIN, 1, magnitude.argmax(-1))
    flat = torch.nn.functional.one_hot(axis, 3) * q.sign()
    flat = torch.where((shape == ENCLOSURE)[..., None], -flat, flat)
    upright = q * torch.tensor([1.0, 0.0, 1.0], device=q.device)
    rounded = torch.where(sideways[..., None], upright, q)
    curved = (shape == SPHERE) | sideways
    normal = torch.where(curved[..., None], torch.nn.functional.normalize(rounded, dim=-1), flat)
    return axis, normal


def _terrain_normal(scene: Scene, shape: Tensor, point: Tensor, normal: Tensor) -> Tensor:
    if TERRAIN not in scene.shape:
        return normal
    slope_x = torch.zeros_like(point[..., 0])
    slope_z = torch.zeros_like(slope_x)
    for k in range(scene.waves.shape[1]):
        kx, kz, phase, amplitude = (scene.waves[:, k, j, None, None] for j in range(4))
        wave = amplitude * torch.cos(kx * point[..., 0] + kz * point[..., 2] + phase)
        slope_x, slope_z = slope_x + kx * wave, slope_z + kz * wave
    up = torch.stack([slope_x, -torch.ones_like(slope_x), slope_z], -1)
    up = torch.nn.functional.normalize(up, dim=-1)
    return torch.where((shape == TERRAIN)[..., None], up, normal)


def _side(axis: Tensor, y: Tensor) -> Tensor:
    """Column of Scene.texture: 0 x sides, 1 z sides, 2 top (-y), 3 bottom."""
    return torch.where(axis == 0, 0, torch.where(axis == 2, 1, torch.where(y < 0, 2, 3)))


def _average(
    colour: Tensor, depth: Tensor, solid: Tensor, size: tuple[int, int], sub_rays: int
) -> Rendering:
    """Mean colour of the sub-rays; their mean depth on one surface, the nearest depth at an
    edge."""
    worlds, views = depth.shape[:2]
    grid = (worlds, views, size[0], sub_rays, size[1], sub_rays)
    rgb = colour.reshape(*grid, 3).mean((3, 5)).permute(0, 1, 4, 2, 3)
    cells = depth.reshape(grid).transpose(3, 4).flatten(-2)
    nearest, mean = cells.amin(-1), cells.mean(-1)
    smooth = cells.amax(-1) < 1.1 * nearest
    return Rendering(
        rgb,
        torch.where(smooth, mean, nearest),
        solid.reshape(grid).transpose(3, 4).flatten(-2).all(-1),
    )


def field_of_view(focal: Tensor, size: tuple[int, int]) -> Tensor:
    """Vertical and horizontal field of view in radians, (W, 2), of focal lengths (W,) in pixels."""
    return torch.stack([2 * torch.atan(edge / 2 / focal) for edge in size], -1)


def focal_length(fov_horizontal: Tensor, width: int) -> Tensor:
    """Focal length in pixels of a horizontal field of view in radians."""
    return width / 2 / torch.tan(fov_horizontal.clamp(max=math.pi - 0.1) / 2)
