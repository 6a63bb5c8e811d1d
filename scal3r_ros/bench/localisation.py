"""How often a camera is found in a saved map, how well, and whether a stranger ever is.

A map is made of one tour through a rendered world; another tour through the same world is then
localised in it, and tours through worlds that the map has not seen try to be.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence as Many
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from scal3r_ros.bench.city import drive
from scal3r_ros.bench.oracle import OracleReconstructor, Spoil
from scal3r_ros.config import Config
from scal3r_ros.mapping.sim3 import rotation_exp
from scal3r_ros.mapping.similarity_fit import weighted_similarity
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline.localisation import LOCALISATION, LocalisingMapper
from scal3r_ros.reconstruct.factory import open_reconstructor, preset_options
from scal3r_ros.records import Chunk, ChunkPrediction, Frame, MapUpdate
from scal3r_ros.train.worlds.clips import HELD_OUT_SEEDS, WorldSampler
from scal3r_ros.train.worlds.rendering import focal_length
from scal3r_ros.train.worlds.scenes import SCENE_KINDS
from scal3r_ros.train.worlds.textures import TexturePool
from scal3r_ros.train.worlds.tours import Tour, film, make_tour

FIRST_SEED = HELD_OUT_SEEDS + 7000
_RATE = 15.0
_SIZE = (168, 224)


@dataclass(frozen=True)
class Walk:
    """A camera's way through a world: frames without ids in order, and their true poses."""

    frames: tuple[Frame, ...]
    T_world_camera: np.ndarray
    """(N, 4, 4), metres."""


@dataclass(frozen=True)
class Found:
    """How well a walk was localised."""

    share: float
    """Of its frames that got a pose."""
    metres: float
    """Median position error."""
    of_scene: float
    """The same as a share of the extent of the map's path."""
    degrees: float
    """Median rotation error."""
    worst_of_scene: float


def walks(
    kind: str, seed: int, frames: int, size: tuple[int, int], pool: TexturePool, start_ns: int = 0
) -> tuple[Walk, Walk]:
    """The way a map is made of, and another one through the same world: between the views of the
    first, up to a tenth of its extent beside them and turned by up to ten degrees."""
    made = make_tour(kind, 2 * frames, seed, pool)
    whole = made.T_world_camera.double().numpy()
    ways = (whole[::2], _beside(whole[1::2], seed))
    first, second = (replace(made, T_world_camera=torch.from_numpy(T).float()) for T in ways)
    other_day = replace(second, seed=seed + 500)
    return walk(first, size, pool, 0), walk(other_day, size, pool, start_ns)


def walk(made: Tour, size: tuple[int, int], pool: TexturePool, start_ns: int) -> Walk:
    """Render a tour."""
    focal = float(focal_length(torch.tensor(made.fov), size[1]))
    K = np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1.0]])
    images = np.concatenate([part[0].numpy() for part in film(made, pool, size)])
    rgb = np.ascontiguousarray((images.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8))
    stamps = [start_ns + round(n * 1e9 / _RATE) for n in range(len(rgb))]
    frames = tuple(Frame(n, stamp, image, K) for n, (stamp, image) in enumerate(zip(stamps, rgb)))
    return Walk(frames, made.T_world_camera.double().numpy())


def take(mapper: LocalisingMapper, walk: Walk, part: slice = slice(None)) -> list[MapUpdate]:
    """Give a walk to a mapper as a stream that begins anew."""
    updates = mapper.start_session()
    for frame in walk.frames[part]:
        updates += mapper.add(replace(frame, id=mapper.next_frame_id))
    return updates + mapper.flush()


def score(mapper: LocalisingMapper, first: Walk, second: Walk, updates: Many[MapUpdate]) -> Found:
    """Poses of the second walk in the map of the first, by the map's own place in the world."""
    by_stamp = {frame.stamp_ns: T for frame, T in zip(first.frames, first.T_world_camera)}
    known = mapper.trajectory()
    mine = np.array([p.T_map_camera[:3, 3] for p in known])
    true = np.array([by_stamp[p.stamp_ns][:3, 3] for p in known])
    S_world_map = weighted_similarity(mine, true, np.ones(len(mine)))
    extent = float(np.linalg.norm(np.ptp(true, axis=0)))
    truth = {frame.stamp_ns: T for frame, T in zip(second.frames, second.T_world_camera)}
    told = {p.stamp_ns: p.T_map_camera for update in updates for p in update.poses}
    moved, turned = [], []
    for stamp, T in told.items():
        found = S_world_map.move_pose(T)
        moved.append(np.linalg.norm(found[:3, 3] - truth[stamp][:3, 3]))
        turned.append(_angle(found[:3, :3].T @ truth[stamp][:3, :3]))
    if not told:
        return Found(0.0, np.inf, np.inf, np.inf, np.inf)
    middle = float(np.median(moved))
    return Found(
        len(told) / len(second.frames), middle, middle / extent,
        float(np.degrees(np.median(turned))), float(np.max(moved)) / extent,
    )  # fmt: skip


def settings(reconstructor: str) -> Config:
    """What suits a reconstructor; of sfm the quick half, whose poses are the same."""
    quick = {"sfm.features": "sift", "sfm.dense": False} if reconstructor == "sfm" else {}
    chosen = {"model.reconstructor": reconstructor, **quick}
    return from_dict(Config, {**preset_options(reconstructor, ""), **chosen})


def mapped(config: Config, walk_: Walk) -> LocalisingMapper:
    """A map of a walk, in which the camera is looked for from now on."""
    mapper = LocalisingMapper(config, open_reconstructor(config))
    take(mapper, walk_)
    mapper.set_mode(LOCALISATION)
    return mapper


class StampedOracle(OracleReconstructor):
    """Knows frames by their stamps, since a mapper numbers them as it likes."""

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        known = [round((f.stamp_ns / 1e9 - 1.0) * self.city.frame_rate) for f in chunk.frames]
        frames = tuple(replace(f, id=i) for f, i in zip(chunk.frames, known))
        own = replace(chunk, frames=frames, overlap_ids=())
        return replace(super().reconstruct(own, contribute), frame_ids=chunk.frame_ids)


def simulated_strangers(count: int, frames: int = 36, each: int = 12) -> tuple[int, int, float]:
    """Two walks through each of `count` streets that have the shape of the map's, descriptors that
    say they are it, and other walls; an oracle puts them on top of the map. Returns how many were
    localised, of how many, and the largest likeness."""
    city = drive(frames, 0.4 * frames, 64, 48, "EN")
    ways, aliases = [city.T_world_camera], []
    for number in range(2 * count):
        start = 12 * (number % 2)
        way = city.T_world_camera[start : start + each].copy()
        way[:, :2, 3] += city.block * np.array([37.0 + number, 11.0])
        aliases.append((start + each // 2, frames + number * each + each // 2))
        ways.append(way)
    whole = replace(city, T_world_camera=np.concatenate(ways))
    spoil = Spoil(depth_noise=0.02, outliers=0.03, aliases=tuple(aliases))
    options = {
        "chunk.size": each, "chunk.overlap": 6, "loop.min_gap": 20, "loop.window": 8,
        "loop.nms_window": 4, "localisation.candidates": 1,
    }  # fmt: skip
    mapper = LocalisingMapper(from_dict(Config, options), StampedOracle(whole, spoil))
    seen = [whole.frame(i) for i in range(frames)]
    take(mapper, Walk(tuple(seen), whole.T_world_camera[:frames]))
    mapper.set_mode(LOCALISATION)
    wrong, best = 0, -1.0
    for number in range(2 * count):
        first = frames + number * each
        part = Walk(tuple(whole.frame(i) for i in range(first, first + each)), ways[number + 1])
        wrong += any(update.poses for update in take(mapper, part))
        stream = mapper._stream
        assert stream is not None and stream.localiser.tried, "every street looks like the map's"
        best = max([best, *(fix.agreement.likeness for fix in stream.localiser.tried)])
    return wrong, 2 * count, best


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/bench/localisation.json"))
    parser.add_argument("--quick", action="store_true", help="one world, four strangers")
    parser.add_argument("--reconstructor", default="sfm", choices=["sfm", "scal3r"])
    parser.add_argument("--worlds", type=int, default=5, help="worlds that are mapped")
    parser.add_argument("--strangers", type=int, default=100, help="worlds that are not")
    parser.add_argument("--frames", type=int, default=60, help="of a walk that is mapped")
    parser.add_argument("--simulated", type=int, default=100, help="streets of the simulated city")
    parser.add_argument("--first", type=int, default=0, help="number of the first stranger")


def run(args: argparse.Namespace) -> None:
    """Map worlds, localise other walks in them, and two stretches of every stranger."""
    torch.set_num_threads(1)
    config, pool = settings(args.reconstructor), WorldSampler.held_out().textures
    worlds, strangers = (1, 4) if args.quick else (args.worlds, args.strangers)
    streets = min(args.simulated, 4) if args.quick else args.simulated
    wrong, tried, best = simulated_strangers(streets) if streets else (0, 0, -1.0)
    print(
        f"simulated strangers: {wrong} of {tried} localised; best likeness {best:.2f}", flush=True
    )
    rows: list[dict] = [{"simulated": tried, "accepted": wrong, "best_likeness": best}]
    mapper = None
    for number in range(worlds):
        kind = SCENE_KINDS[number % len(SCENE_KINDS)]
        first, second = walks(kind, FIRST_SEED + number, args.frames, _SIZE, pool, 10**12)
        mapper = mapped(config, first)
        found = score(mapper, first, second, take(mapper, second))
        rows.append({"world": f"{kind}-{number}", "mapped": len(mapper.trajectory()),
                     **asdict(found)})  # fmt: skip
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else str(v)
                        for k, v in rows[-1].items()), flush=True)  # fmt: skip
    if mapper is not None:
        wrong, tried, best = never(mapper, pool, range(args.first, args.first + strangers))
        print(f"strangers: {wrong} of {tried} walks localised; best likeness {best:.2f}")
        rows.append({"strangers": tried, "accepted": wrong, "best_likeness": best})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")


def never(mapper: LocalisingMapper, pool: TexturePool, numbers: range) -> tuple[int, int, float]:
    """Two walks through each world that the map has not seen: how many were localised, of how many,
    and the largest likeness of any place that was compared."""
    wrong = tried = 0
    best = -1.0
    size = mapper.config.chunk.size
    for number in numbers:
        kind = SCENE_KINDS[number % len(SCENE_KINDS)]
        made = make_tour(kind, 200, FIRST_SEED + 1000 + number, pool)
        for start in (0, 100):
            T = made.T_world_camera[start : start + 2 * size : 2]
            part = walk(replace(made, T_world_camera=T), _SIZE, pool, (number + 2) * 10**12)
            updates = take(mapper, part)
            tried += 1
            wrong += any(update.poses for update in updates)
            stream = mapper._stream
            assert stream is not None
            best = max([best, *(fix.agreement.likeness for fix in stream.localiser.tried)])
    return wrong, tried, best


def _beside(T: np.ndarray, seed: int) -> np.ndarray:
    """Another way beside the poses (N, 4, 4)."""
    random = np.random.default_rng(seed)
    count, extent = len(T), float(np.ptp(T[:, :3, 3], axis=0).max())
    time = np.linspace(0.0, 2 * np.pi, count)[:, None]
    rate, phase = random.uniform(1.0, 3.0, (2, 3)), random.uniform(0, 2 * np.pi, (2, 3))
    waves = np.sin(rate[:, None] * time + phase[:, None])
    away = 0.05 * extent * waves[0] * (1.0, 0.3, 1.0)
    turn = np.radians(10.0) * waves[1] * (0.4, 1.0, 0.2)
    other = T.copy()
    other[:, :3, 3] += away
    other[:, :3, :3] = T[:, :3, :3] @ rotation_exp(turn)
    return other


def _angle(R: np.ndarray) -> float:
    return float(np.arccos(np.clip((np.trace(R) - 1.0) / 2.0, -1.0, 1.0)))


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    run(_parser.parse_args())
