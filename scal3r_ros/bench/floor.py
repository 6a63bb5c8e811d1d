"""How well the occupancy grid of the demo recording agrees with that of true depth.

The recording is mapped by structure from motion, its true poses serving as odometry and gravity;
the same grid is made from the depth and poses that it was rendered with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from scal3r_ros.config import Config, GridConfig, read_options
from scal3r_ros.io.inputs import open_source
from scal3r_ros.mapping.occupancy import Occupancy, OccupancyGrid, Scan
from scal3r_ros.mapping.sim3 import Sim3
from scal3r_ros.options import flatten, from_dict, walk_options
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct.factory import open_reconstructor

ROOT = Path(__file__).resolve().parents[2]
STRIDE = 3
_SIZE = (120, 160)
_FRAMES = 360
_CHUNK = 20


def measure(frames: int) -> dict[str, float]:
    """Shares between 0 and 1 over the first `frames` images."""
    poses, truth = true_grid(frames)
    live_map = mapped(frames, poses)
    S_world_map = _placed(live_map, poses)
    moved = {chunk: S_world_map @ S for chunk, S in live_map.graph.nodes.items()}
    found = live_map.floor.occupancy.grid(moved, np.zeros(2))
    return {"occupied": overlap(found, truth, 65, 100), "free": overlap(found, truth, 0, 25)}


def true_grid(frames: int) -> tuple[np.ndarray, OccupancyGrid]:
    """True poses (N, 4, 4) of all images, and the grid of what they saw."""
    import torch

    from scal3r_ros.train.demo_bag import demo_tour
    from scal3r_ros.train.worlds.rendering import focal_length, nearest_hit, ray_directions

    made = demo_tour(_FRAMES)
    focal = focal_length(torch.tensor([made.fov]), _SIZE[1])
    poses = made.T_world_camera[:frames].double().numpy()
    scans = []
    for T in made.T_world_camera[:frames:STRIDE]:
        rays = ray_directions(T[None, None, :3, :3], focal, _SIZE, 1)
        origin = T[None, None, :3, 3]
        depth = nearest_hit(made.scene, origin, rays).depth
        ends = (origin[:, :, None] + rays * depth[..., None]).reshape(-1, 3).double().numpy()
        scans.append(Scan(T[:3, 3].double().numpy(), ends[np.isfinite(ends).all(axis=1)]))
    occupancy = Occupancy(GridConfig())
    up = Sim3(np.ones(()), _upright(poses), np.zeros(3))
    for start in range(0, len(scans), _CHUNK):
        occupancy.add(start, scans[start : start + _CHUNK], up)
    here = dict.fromkeys(range(0, len(scans), _CHUNK), up)
    T_up_world = np.eye(4)
    T_up_world[:3, :3] = up.rotation
    return T_up_world @ poses, occupancy.grid(here, np.zeros(2))


def mapped(frames: int, poses: np.ndarray) -> LiveMap:
    """The recording through the mapper, with the options of the demo."""
    file = flatten(read_options(ROOT / "config" / "demo.yaml"))
    ours = {option.name for option in walk_options(Config)}
    options = {name: value for name, value in file.items() if name in ours}
    options |= {"map.alignment": "imu", "grid.enabled": True, "scale.source": "odometry"}
    config = from_dict(Config, options)
    mapper = Mapper(config, open_reconstructor(config))
    mapper.set_camera_mount(np.eye(4))
    source = open_source(ROOT / "demo" / "loop_room")
    for image, T in zip(source, poses):
        mapper.observe_odometry(image.stamp_ns, T)
        mapper.observe_gravity(image.stamp_ns, 9.81 * T[2, :3])
    for index, image in enumerate(source):
        if index < frames and index % STRIDE == 0:
            frame = image.decode()
            mapper.add(type(frame)(index // STRIDE, frame.stamp_ns, frame.rgb, frame.intrinsics))
    mapper.flush()
    return mapper.live_map


def overlap(found: OccupancyGrid, truth: OccupancyGrid, least: int, most: int) -> float:
    """Intersection over union of the cells in a range of values, where the truth is known."""
    sizes = (found.cells.shape, truth.cells.shape)
    starts = [np.rint(grid.origin[::-1] / truth.resolution).astype(int) for grid in (found, truth)]
    low = np.minimum(*starts)
    high = np.maximum(*(start + size for start, size in zip(starts, sizes)))
    both = []
    for grid, start in zip((found, truth), starts):
        canvas = np.full(high - low, -1, np.int8)
        rows, columns = start - low
        canvas[rows : rows + grid.cells.shape[0], columns : columns + grid.cells.shape[1]] = (
            grid.cells
        )
        both.append(canvas)
    known = both[1] >= 0
    is_found, is_true = ((grid >= least) & (grid <= most) & known for grid in both)
    return float((is_found & is_true).sum() / max((is_found | is_true).sum(), 1))


def _upright(poses: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) that makes the cameras' mean upward direction the third axis."""
    up = -poses[:, :3, 1].mean(axis=0)
    up = np.eye(3)[np.abs(up).argmax()] * np.sign(up[np.abs(up).argmax()])
    first = np.roll(np.abs(up), 1)
    return np.stack([first, np.cross(up, first), up])


def _placed(live_map: LiveMap, poses: np.ndarray) -> Sim3:
    """S_world_map by the positions of the frames, about the vertical."""
    ids = live_map.trajectory.frame_ids
    here = live_map.trajectory.matrices(live_map.graph.nodes, ids)[:, :3, 3]
    there = poses[[i * STRIDE for i in ids], :3, 3]
    a, b = ((p - p.mean(axis=0)) @ [1, 1j, 0] for p in (here, there))
    heading = np.angle((np.conj(a) * b).sum())
    cosine, sine = np.cos(heading), np.sin(heading)
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    return Sim3(np.ones(()), turn, there.mean(axis=0) - turn @ here.mean(axis=0))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this part of the benchmark."""
    parser.add_argument("--out", type=Path, default=None, help="write the numbers here (JSON)")
    parser.add_argument("--quick", action="store_true", help="a third of the recording")


def run(args: argparse.Namespace) -> None:
    """Print the shares."""
    found = measure(_FRAMES // 3 if args.quick else _FRAMES)
    print(
        f"cells of 5 cm, sfm against true depth: intersection over union {found['occupied']:.2f} "
        f"of the occupied, {found['free']:.2f} of the free"
    )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
