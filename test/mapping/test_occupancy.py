"""Occupancy of known rooms: walls, boxes, a hole, a ramp, glass, and after a correction."""

import numpy as np
import pytest
from box_world import World, camera, room, scan

from scal3r_ros.config import GridConfig
from scal3r_ros.mapping.floor import NoFloor
from scal3r_ros.mapping.occupancy import Occupancy, Scan
from scal3r_ros.mapping.sim3 import Sim3

CONFIG = GridConfig()
HERE = Sim3.identity()
HALF = (3.02, 2.515)
FURNISHED = room(
    HALF,
    boxes=(
        ((0.82, 0.53, -0.1), (1.62, 1.33, 0.5)),
        ((-1.78, -1.57, -0.1), (-1.18, -0.88, 1.2)),
        ((-1.0, 1.6, 1.8), (1.0, 2.2, 2.2)),
    ),
)
"""Two pieces of furniture, and a shelf high enough to drive under."""


def tour(count=36, radius=0.9):
    """Cameras on a circle that look outwards, and some across."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [
        camera(radius * np.cos(a) - 0.2, radius * np.sin(a) - 0.1, a + (0.4 if i % 2 else 2.6))
        for i, a in enumerate(angles)
    ]


def mapped(world, poses, noise=0.0, chunk=12, config=CONFIG, S=HERE):
    """Scans of consecutive chunks, each in coordinates of its chunk."""
    random, made = np.random.default_rng(0), Occupancy(config)
    for start in range(0, len(poses), chunk):
        scans = [scan(world, T, noise, random) for T in poses[start : start + chunk]]
        made.add(start // chunk, scans, S)
    return made


def everywhere(count=9):
    return dict.fromkeys(range(count), HERE)


def centres(grid):
    x = grid.origin[0] + (np.arange(grid.cells.shape[1]) + 0.5) * grid.resolution
    y = grid.origin[1] + (np.arange(grid.cells.shape[0]) + 0.5) * grid.resolution
    return np.meshgrid(x, y)


def shares(grid, world, half=HALF):
    """Intersection over union of occupied and of free cells within the room.

    Occupied is what a surface goes through; cells behind a surface on all sides cannot be seen and
    are left out.
    """
    x, y = centres(grid)
    cell = grid.resolution
    true = world.solid(x, y, cell / 2)
    inside = (np.abs(x) < half[0] + cell / 2) & (np.abs(y) < half[1] + cell / 2)
    sides = ((cell, 0), (-cell, 0), (0, cell), (0, -cell))
    inside &= ~np.all([world.solid(x + dx, y + dy, cell / 2) for dx, dy in sides], axis=0)
    occupied, free = (grid.cells >= 65) & inside, (grid.cells >= 0) & (grid.cells <= 25) & inside
    ious = []
    for found, wanted in ((occupied, true & inside), (free, ~true & inside)):
        ious.append((found & wanted).sum() / (found | wanted).sum())
    return ious


def test_a_furnished_room():
    world = World(FURNISHED)
    grid = mapped(world, tour(), noise=0.005).grid(everywhere(), np.zeros(2))
    occupied, free = shares(grid, world_below(FURNISHED))
    assert occupied >= 0.7 and free >= 0.7, (occupied, free)
    assert grid.cells.min() == -1 and grid.cells.max() <= 100


def world_below(boxes):
    """The floor plan: without what hangs higher than `max_height`."""
    return World(tuple(box for box in boxes if box[0][2] < CONFIG.max_height))


def test_a_hole_is_no_floor():
    world = World(room(), holes=((0.9, -0.6, 1.9, 0.6),))
    poses = [camera(-1.0 + 0.1 * i, 0.3 * np.sin(i), 0.0) for i in range(12)]
    grid = mapped(world, poses, chunk=6).grid(everywhere(), np.zeros(2))
    x, y = centres(grid)
    hole = (x > 1.1) & (x < 1.8) & (np.abs(y) < 0.4)
    before = (x > 0.0) & (x < 0.7) & (np.abs(y) < 0.4)
    assert (grid.cells[hole] >= 65).mean() > 0.7
    assert ((grid.cells[hole] >= 0) & (grid.cells[hole] <= 25)).mean() < 0.05
    assert ((grid.cells[before] >= 0) & (grid.cells[before] <= 25)).mean() > 0.9


def test_a_ramp_is_floor_and_a_step_is_not():
    ramp = World(room((6.0, 1.5), height=4.0), ramp=(0.0, 4.0, 0.8))
    rising = [
        camera(x, 0.2 * np.sin(x), 0.0, height=0.8 + ramp.floor(x)) for x in np.arange(-3, 3, 0.25)
    ]
    grid = mapped(ramp, rising).grid(everywhere(), np.zeros(2))
    x, y = centres(grid)
    slope = (x > -1.0) & (x < 4.0) & (np.abs(y) < 1.0)
    assert ((grid.cells[slope] >= 0) & (grid.cells[slope] <= 25)).mean() > 0.9
    step = World(room((6.0, 1.5), height=4.0, boxes=(((1.02, -1.5, -0.1), (6.0, 1.5, 0.3)),)))
    level = [camera(x, 0.0, 0.0) for x in np.arange(-3, 0, 0.15)]
    grid = mapped(step, level).grid(everywhere(), np.zeros(2))
    x, y = centres(grid)
    riser = (np.abs(x - 1.025) < 0.02) & (np.abs(y) < 1.0)
    assert (grid.cells[riser] >= 65).mean() > 0.8


def test_what_has_no_depth_stays_unknown():
    world = World(room(), glass=((1.5, -2.5, -0.1), (1.6, 2.5, 2.4)))
    poses = [camera(-1.5 + 0.05 * i, 0.1 * i - 1.0, 0.1) for i in range(20)]
    grid = mapped(world, poses).grid(everywhere(), np.zeros(2))
    x, y = centres(grid)
    assert (grid.cells[(x > 1.7) & (np.abs(y) < 2.4)] == -1).all()
    assert (grid.cells[(x > 0.2) & (x < 0.9) & (np.abs(y) < 0.8)] >= 0).mean() > 0.8


def test_what_went_away_goes_away():
    there, gone = World(room(boxes=(((0.82, -0.3, -0.1), (1.1, 0.3, 0.6)),))), World(room())
    poses = [camera(-0.8, 0.05 * i - 0.5, 0.0) for i in range(20)]
    occupancy = Occupancy(CONFIG)
    occupancy.add(0, [scan(there, T) for T in poses[:6]], HERE)
    spot = lambda g: g.cells[(np.abs(centres(g)[0] - 0.825) < 0.02) & (np.abs(centres(g)[1]) < 0.2)]  # noqa: E731
    assert (spot(occupancy.grid(everywhere(), np.zeros(2))) >= 65).mean() > 0.8
    for chunk in (1, 2, 3):
        occupancy.add(chunk, [scan(gone, T) for T in poses], HERE)
    assert (spot(occupancy.grid(everywhere(), np.zeros(2))) <= 25).mean() > 0.8


def test_a_correction_moves_the_grid_and_the_obstacles():
    """A chunk was placed wrongly by turn and shift; where it belongs, it says what a chunk says
    that was placed well at once."""
    world = World(FURNISHED)
    wrong = Sim3(
        np.ones(()),
        np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1.0]]),
        np.array([1.0, -0.7, 0.1]),
    )
    poses = tour(24)
    good, bad = mapped(world, poses, chunk=24), mapped(world, poses, chunk=24, S=wrong)
    displaced = shares(bad.grid({0: wrong}, np.zeros(2)), world_below(FURNISHED))
    occupied, free = shares(bad.grid({0: HERE}, np.zeros(2)), world_below(FURNISHED))
    placed_well = shares(good.grid({0: HERE}, np.zeros(2)), world_below(FURNISHED))
    assert displaced[0] < 0.3 and occupied > 0.6 and free > placed_well[1] - 0.1
    found = bad.obstacles({0: HERE}, np.zeros(2))
    assert world_below(FURNISHED).solid(*found[:, :2].T, 0.05).mean() > 0.95


def test_obstacles_stand_on_the_floor_and_lone_points_are_noise():
    world = World(FURNISHED)
    scans = [scan(world, T) for T in tour(12)]
    lone = np.array([[0.0, 0.0, 0.6]], np.float32)
    scans[0] = Scan(scans[0].origin, np.concatenate([scans[0].points, lone]))
    occupancy = Occupancy(CONFIG)
    occupancy.add(0, scans, HERE)
    found = occupancy.obstacles({0: HERE}, np.zeros(2))
    assert len(found) > 300
    assert (found[:, 2] > CONFIG.min_height - 0.03).all() and found[:, 2].max() < CONFIG.max_height
    assert np.linalg.norm(found - lone, axis=1).min() > 0.2


def test_the_grid_is_bounded():
    world = World(room((30.0, 2.0)))
    poses = [camera(x, 0.0, 0.0) for x in np.arange(-20, 20, 1.0)]
    config = GridConfig(max_size=10.0, max_megabytes=0.5)
    occupancy = mapped(world, poses, chunk=4, config=config)
    grid = occupancy.grid(everywhere(20), np.array([15.0, 0.0]))
    assert max(grid.cells.shape) * grid.resolution <= 10.1
    assert occupancy.nbytes <= 0.5e6 and occupancy.dropped > 0


def test_without_a_floor_nothing_is_taken():
    above = Scan(np.array([0.0, 0.0, 0.5]), np.random.default_rng(0).uniform(1, 2, (500, 3)))
    occupancy = Occupancy(CONFIG)
    with pytest.raises(NoFloor, match="turn the camera"):
        occupancy.add(0, [above], HERE)
    assert not occupancy.nbytes


def looked_at(config):
    """Grid of a furnished room by some options."""
    return mapped(World(FURNISHED), tour(12), config=config).grid(everywhere(), np.zeros(2))


def share_free(grid, x0, x1, y0, y1):
    x, y = centres(grid)
    inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    return ((grid.cells[inside] >= 0) & (grid.cells[inside] <= 25)).mean()


def test_heights_and_resolution_are_those_that_are_asked_for():
    table = World(room(HALF, boxes=(((-0.9, 1.22, 0.55), (0.9, 1.9, 0.65)),)))
    ahead = [camera(0.02 * i, -0.5, np.pi / 2) for i in range(6)]
    standing = []
    for config in (CONFIG, GridConfig(max_height=0.5)):
        grid = mapped(table, ahead, config=config).grid(everywhere(), np.zeros(2))
        x, y = centres(grid)
        edge = (np.abs(x) < 0.6) & (np.abs(y - 1.225) < 0.02)
        standing.append((grid.cells[edge] >= 65).mean())
    assert standing[0] > 0.8 and standing[1] < 0.05, standing
    usual = looked_at(CONFIG)
    low = World(room(HALF, boxes=(((0.8, -0.5, -0.1), (1.5, 0.5, 0.25)),)))
    over = GridConfig(min_height=0.3, max_step=0.3)
    ahead = [camera(-1.0, 0.05 * i - 0.3, 0.0) for i in range(12)]
    on_box = (0.9, 1.4, -0.4, 0.4)
    seen = [mapped(low, ahead, config=c).grid(everywhere(), np.zeros(2)) for c in (CONFIG, over)]
    assert share_free(seen[0], *on_box) < 0.3 and share_free(seen[1], *on_box) > 0.7
    coarse = looked_at(GridConfig(resolution=0.1))
    assert coarse.resolution == 0.1 and coarse.cells.size < 0.3 * usual.cells.size


def test_slopes_and_drops_are_those_that_are_asked_for():
    ramp = World(room((6.0, 1.5), height=4.0), ramp=(0.0, 4.0, 1.2))
    heights = [camera(x, 0.0, 0.0, height=0.8 + ramp.floor(x)) for x in np.arange(-3, 0, 0.15)]
    slope = (1.0, 2.5, -0.8, 0.8)
    grids = [
        mapped(ramp, heights, config=GridConfig(max_slope=s, max_step=0.02)).grid(
            everywhere(), np.zeros(2)
        )
        for s in (0.4, 0.05)
    ]
    assert share_free(grids[0], *slope) > 0.7 and share_free(grids[1], *slope) < 0.2
    pit = World(room(HALF), holes=((0.9, -0.6, 1.9, 0.6),))
    poses = [camera(-1.0 + 0.05 * i, 0.0, 0.0) for i in range(12)]
    grid = mapped(pit, poses, config=GridConfig(max_drop=2.0)).grid(everywhere(), np.zeros(2))
    x, y = centres(grid)
    hole = (x > 1.1) & (x < 1.8) & (np.abs(y) < 0.4)
    assert (grid.cells[hole] >= 65).mean() < 0.1, "a metre is not deep by this option"


def test_obstacles_are_near_and_new():
    occupancy = mapped(World(FURNISHED), tour(16), chunk=4)
    everything = occupancy.obstacles(everywhere(), np.zeros(2))
    near = mapped(World(FURNISHED), tour(16), chunk=4, config=GridConfig(obstacle_range=1.5))
    found = near.obstacles(everywhere(), np.zeros(2))
    assert 0 < len(found) < len(everything) and np.linalg.norm(found[:, :2], axis=1).max() <= 1.5
    newest = mapped(World(FURNISHED), tour(16), chunk=4, config=GridConfig(obstacle_chunks=1))
    assert 0 < len(newest.obstacles(everywhere(), np.zeros(2))) < len(everything)
