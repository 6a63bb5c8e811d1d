"""Short drives through the mapper, and how far from the truth they end."""

import numpy as np

from scal3r_ros.config import Config
from scal3r_ros.options import from_dict

SMALL = {"chunk.size": 16, "chunk.overlap": 8, "loop.enabled": False}


def config(**changes):
    return from_dict(Config, SMALL | {k.replace("__", "."): v for k, v in changes.items()})


def run(city, mapper, frames=None):
    updates = []
    for i in range(len(city)) if frames is None else frames:
        updates += mapper.add(city.frame(i))
    return updates + mapper.flush()


def relative_error(city, poses):
    """Largest position error after the best similarity, as a share of the path."""
    true = city.T_world_camera[[p.frame_id for p in poses], :3, 3]
    found = np.stack([p.T_map_camera[:3, 3] for p in poses])
    x, y = found - found.mean(axis=0), true - true.mean(axis=0)
    u, s, vt = np.linalg.svd(y.T @ x)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    moved = (s * np.diag(flip)).sum() / (x**2).sum() * x @ (u @ flip @ vt).T
    return np.linalg.norm(moved - y, axis=1).max() / city.path_length()
