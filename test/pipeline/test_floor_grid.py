"""The grid of a whole run: through chunks, scale and loops, saved, exported; refused otherwise."""

import numpy as np
import pytest
import yaml
from box_world import World, camera, rays, room
from mapper_runs import config
from PIL import Image
from scipy import ndimage

from scal3r_ros import cli
from scal3r_ros.pipeline.floor_grid import GridRefused
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.reconstruct.interface import MemoryState
from scal3r_ros.records import ChunkPrediction, Frame

WIDTH, HEIGHT, FOCAL = 80, 60, 50.0
HALF = (3.02, 2.515)


class RoomReconstructor:
    """Knows the room and gives every chunk a unit of its own."""

    name, round_size = "room", 1

    def __init__(self, world, poses):
        self.world, self.poses = world, poses

    def reconstruct(self, chunk, contribute=True):
        ids = chunk.frame_ids
        unit = 1.0 + 0.3 * np.sin(chunk.index)
        first = np.linalg.inv(self.poses[ids[0]])
        T = np.stack([first @ self.poses[i] for i in ids])
        T[:, :3, 3] /= unit
        depth = np.stack([self.depth(i) for i in ids]) / np.float32(unit)
        K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])
        return ChunkPrediction(
            chunk_index=chunk.index, frame_ids=ids, T_chunk_camera=T,
            intrinsics=np.tile(K, (len(ids), 1, 1)), depth=depth,
            confidence=np.where(np.isfinite(depth), np.float32(1), np.float32(0)),
            rgb=np.zeros((*depth.shape, 3), np.uint8),
            descriptors=np.eye(64, dtype=np.float32)[[i % 64 for i in ids]],
        )  # fmt: skip

    def depth(self, index):
        T = self.poses[index]
        found = self.world.depth(T[:3, 3], rays(WIDTH, HEIGHT, FOCAL) @ T[:3, :3].T)
        return found.reshape(HEIGHT, WIDTH).astype(np.float32)

    def reconstruct_round(self, chunks):
        return [self.reconstruct(chunk) for chunk in chunks]

    def reset(self):
        pass

    def state(self):
        return MemoryState("room", "room", 0)

    def restore(self, state):
        pass


def tour(count=40):
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [camera(0.6 * np.cos(a), 0.6 * np.sin(a), a + 0.3) for a in angles]


def drive(**options):
    """A tour whose odometry tells metres, with the map level by its floor."""
    world = World(room(HALF, boxes=(((0.82, 0.53, -0.1), (1.62, 1.33, 0.5)),)))
    poses = tour()
    wanted = {
        "loop__min_gap": 1000, "loop__enabled": True, "scale__source": "odometry",
        "map__alignment": "floor", "grid__enabled": True, "gate__max_gap": 0.0,
    }  # fmt: skip
    mapper = Mapper(config(**wanted | options), RoomReconstructor(world, poses))
    mapper.set_camera_mount(np.eye(4))
    for index, T in enumerate(poses):
        mapper.observe_odometry(10**9 + index * 10**8, T)
    for index in range(len(poses)):
        rgb = np.full((HEIGHT, WIDTH, 3), index, np.uint8)
        mapper.add(Frame(index, 10**9 + index * 10**8, rgb))
    mapper.flush()
    return world, poses, mapper


@pytest.fixture(scope="module")
def driven():
    return drive()


def in_world(grid, poses):
    """Turn the world into the map: the first camera is its origin, x ahead of it."""
    T = poses[0]
    x, y = np.meshgrid(
        grid.origin[0] + (np.arange(grid.cells.shape[1]) + 0.5) * grid.resolution,
        grid.origin[1] + (np.arange(grid.cells.shape[0]) + 0.5) * grid.resolution,
    )
    ahead = T[:2, 2] / np.linalg.norm(T[:2, 2])
    return T[0, 3] + x * ahead[0] - y * ahead[1], T[1, 3] + x * ahead[1] + y * ahead[0]


def accuracy(grid, poses, world):
    """Share of occupied cells that stand near something, and of free cells that do not."""
    x, y = in_world(grid, poses)
    occupied = grid.cells >= 65
    free = (grid.cells >= 0) & (grid.cells <= 25)
    return world.solid(x, y, 0.08)[occupied].mean(), 1 - world.solid(x, y, -0.03)[free].mean()


def test_a_drive_gives_a_grid_in_metres(driven):
    world, poses, mapper = driven
    assert mapper.scale.frozen
    grid = mapper.live_map.floor_grid()
    standing, clear = accuracy(grid, poses, world)
    assert standing > 0.9 and clear > 0.98, (standing, clear)
    free = (grid.cells >= 0) & (grid.cells <= 25)
    assert free.sum() * grid.resolution**2 > 0.7 * 4 * HALF[0] * HALF[1]
    obstacles = mapper.live_map.obstacles()
    assert len(obstacles) > 200 and obstacles.dtype == np.float32


def test_a_saved_map_has_the_same_floor_plan(driven, tmp_path):
    """As map_server reads it: `image`, `resolution`, `origin` of the lower left corner."""
    world, poses, mapper = driven
    mapper.save(tmp_path / "saved")
    words = ["export", str(tmp_path / "saved"), "--out", str(tmp_path), "--grid"]
    assert cli.main(words) == cli.OK
    facts = yaml.safe_load((tmp_path / "grid.yaml").read_text())
    with Image.open(tmp_path / facts["image"]) as image:
        pixels = np.asarray(image)[::-1]
    assert facts["mode"] == "trinary" and facts["negate"] == 0
    live = mapper.live_map.floor_grid()
    shift = np.rint((np.array(facts["origin"][:2]) - live.origin) / facts["resolution"]).astype(int)
    height, width = live.cells.shape
    rows, columns = np.indices(pixels.shape) + np.array([shift[1], shift[0]])[:, None, None]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    canvas = np.full(live.cells.shape, -1, int)
    canvas[rows[inside], columns[inside]] = pixels[inside]
    occupied, free = live.cells >= 65, (live.cells >= 0) & (live.cells <= 25)
    # Saved is every fourth pixel of these small images: walls have gaps, but stand where they did.
    beside = ndimage.binary_dilation(occupied)
    assert beside[canvas == 0].mean() > 0.95 and (canvas[occupied] == 0).mean() > 0.5
    assert (~occupied)[canvas == 254].mean() > 0.98 and (canvas[free] == 254).mean() > 0.5


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"scale__source": "none"}, "not in metres.*set scale.source"),
        ({"map__alignment": "first_camera"}, "up is not measured.*imu.*floor"),
        ({"grid__enabled": False}, "grid.enabled is false"),
    ],
)
def test_it_is_refused_with_the_reason(options, reason):
    _, _, mapper = drive(**options)
    with pytest.raises(GridRefused, match=reason):
        mapper.live_map.floor_grid()
    with pytest.raises(GridRefused, match=reason):
        mapper.live_map.obstacles()
