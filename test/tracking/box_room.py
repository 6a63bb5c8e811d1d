"""A textured box seen from inside: images and exact depth, fast enough to make hundreds."""

import cv2
import numpy as np

from scal3r_ros import rigid
from scal3r_ros.records import Frame
from scal3r_ros.tracking.interface import Submap

STEP_NS = 66_666_667
COUNT = 75
"""Images that the tests share."""
HALF = np.array([2.5, 1.5, 2.0])
_TEXELS = 512


class BoxRoom:
    """Camera looks at the walls; `intrinsics` in pixels of the images."""

    def __init__(self, size=(240, 320), focal=230.0, seed=0):
        self.size = size
        height, width = size
        self.intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
        self._faces = [_texture(seed * 6 + i) for i in range(6)]
        rows, columns = np.mgrid[:height, :width] + 0.5
        x, y = (columns - width / 2) / focal, (rows - height / 2) / focal
        self._rays = np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float64)

    def view(self, T_world_camera):
        """Image (H, W, 3) uint8 and z-depth (H, W) float32."""
        origin, rays = T_world_camera[:3, 3], self._rays @ T_world_camera[:3, :3].T
        with np.errstate(divide="ignore"):
            reach = (np.sign(rays) * HALF - origin) / rays
        axis = reach.argmin(axis=-1)
        depth = np.take_along_axis(reach, axis[..., None], axis=-1)[..., 0]
        hit = (origin + rays * depth[..., None]) / HALF
        image = np.zeros((*self.size, 3), np.uint8)
        for i in range(3):
            others = [j for j in range(3) if j != i]
            maps = ((hit[..., others] + 1) / 2 * (_TEXELS - 1)).astype(np.float32)
            for face, side in ((2 * i, hit[..., i] > 0), (2 * i + 1, hit[..., i] <= 0)):
                here = (axis == i) & side
                if here.any():
                    seen = cv2.remap(
                        self._faces[face], maps[..., 0], maps[..., 1], cv2.INTER_LINEAR
                    )
                    image[here] = seen[here]
        return image, depth.astype(np.float32)

    def frame(self, number, T_world_camera):
        return Frame(number, stamp(number), self.view(T_world_camera)[0], self.intrinsics)

    def submap(self, numbers, poses, scale=1.0, move=None):
        """The frames as a mapper would place them: in units of `scale`, the map moved by `move`."""
        move = np.eye(4) if move is None else move
        depth = np.stack([self.view(poses[n])[1] for n in numbers]) * np.float32(scale)
        placed = np.stack([poses[n] for n in numbers])
        placed[:, :3, 3] *= scale
        K = np.broadcast_to(self.intrinsics, (len(numbers), 3, 3)).copy()
        stamps = np.array([stamp(n) for n in numbers], np.int64)
        return Submap(stamps, move @ placed, depth, np.ones_like(depth), K)


def stamp(number):
    return 1_000_000_000 + number * STEP_NS


def tour(count, speed=0.02, turn=0.012):
    """Poses (count, 4, 4) on an oval, the camera turning as it goes."""
    poses = []
    for i in range(count):
        place, heading = i * speed, i * turn
        T = np.eye(4)
        T[:3, :3] = cv2.Rodrigues(np.array([0.06 * np.sin(0.05 * i), heading, 0.03]))[0]
        T[:3, 3] = np.sin(place), 0.2 * np.sin(0.7 * place), 0.8 * np.cos(place) - 0.8
        poses.append(T)
    return np.stack(poses)


def apart(a, b):
    """Distance and angle in degrees between two poses."""
    rest = rigid.inverse(a) @ b
    angle = np.linalg.norm(cv2.Rodrigues(rest[:3, :3])[0])
    return float(np.linalg.norm(rest[:3, 3])), float(np.degrees(angle))


def _texture(seed):
    """Smooth noise of several grains: corners everywhere, nothing finer than a pixel."""
    random = np.random.default_rng(seed)
    picture = np.zeros((_TEXELS, _TEXELS, 3), np.float32)
    for grain, weight in ((6, 40), (16, 45), (40, 45)):
        noise = random.uniform(-1, 1, (grain, grain, 3)).astype(np.float32)
        picture += weight * cv2.resize(noise, (_TEXELS, _TEXELS), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + 128, 0, 255).astype(np.uint8)
