"""Places that look alike and are not one: how many of them are taken for loops, and how many true
loops are still closed.

The city of the long runs is driven with pairs of neighbourhoods that look the same though they are
far apart. A loop chunk over such a pair puts both places on top of each other, as a network does
that is fooled, so that both of its ends fit their chunks perfectly.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from scal3r_ros.bench.city import City, drive
from scal3r_ros.bench.mapping import trajectory_error
from scal3r_ros.bench.oracle import REALISTIC, SAME_PLACE, OracleReconstructor
from scal3r_ros.config import Config, LongContextConfig
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.records import Event, Frame

ALIASES = 60
"""Pairs of neighbourhoods of one drive that look the same."""
APART = 250
"""Frames between them, at least."""


@dataclass(frozen=True)
class LoopCount:
    """Of one drive."""

    seed: int
    false_offered: int
    """Candidates of two different places whose loop chunk was reconstructed."""
    false_accepted: int
    true_offered: int
    true_accepted: int
    ate: float
    """Metres."""

    @property
    def precision(self) -> float:
        return self.true_accepted / max(self.true_accepted + self.false_accepted, 1)

    @property
    def recall(self) -> float:
        """Of the true candidates that were offered."""
        return self.true_accepted / max(self.true_offered, 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/bench/false_loops.json"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--quick", action="store_true", help="the first draw only")
    parser.add_argument("--context", type=int, default=4, help="long_context.every")


def run(args: argparse.Namespace) -> list[LoopCount]:
    """Drive, count, print and write."""
    results = []
    for seed in args.seeds[: 1 if args.quick else None]:
        results.append(count_loops(drive(width=32, height=12), seed, context=args.context))
        found = results[-1]
        print(
            f"draw {seed}: {found.false_accepted} of {found.false_offered} false candidates "
            f"accepted, {found.true_accepted} of {found.true_offered} true ones, precision "
            f"{found.precision:.3f}, recall {found.recall:.3f}, ATE {found.ate:.2f} m",
            flush=True,
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps([asdict(result) for result in results], indent=1))
    return results


def count_loops(city: City, seed: int, pairs: int = ALIASES, context: int = 4) -> LoopCount:
    """Map a drive through a city with `pairs` look-alikes."""
    spoil = replace(REALISTIC, seed=seed, aliases=look_alikes(city, seed, pairs))
    config = Config(long_context=LongContextConfig(every=context))
    mapper, events = Mapper(config, OracleReconstructor(city, spoil)), []
    for index in range(len(city)):
        frame = Frame(index, city.stamp_ns(index), np.zeros((2, 2, 3), np.uint8))
        events += [event for update in mapper.add(frame) for event in update.events]
    events += [event for update in mapper.flush() for event in update.events]
    tried = [_pair(event) for event in events if event.name in ("loop_closed", "loop_rejected")]
    true = [_same_place(city, *pair) for pair in tried]
    taken = {frozenset(pair) for pair in _accepted(mapper, city)}
    false_accepted = sum(1 for pair in taken if len(pair) == 2 and not _same_place(city, *pair))
    accepted = [event.name == "loop_closed" for event in events
                if event.name in ("loop_closed", "loop_rejected")]  # fmt: skip
    return LoopCount(
        seed=seed,
        false_offered=true.count(False),
        false_accepted=max(
            false_accepted, sum(yes and not good for yes, good in zip(accepted, true))
        ),
        true_offered=true.count(True),
        true_accepted=sum(yes and good for yes, good in zip(accepted, true)),
        ate=trajectory_error(mapper.trajectory(), city),
    )


def look_alikes(city: City, seed: int, pairs: int) -> tuple[tuple[int, int], ...]:
    """Pairs (earlier frame, later frame) of different places; no later ones overlap."""
    random, chosen = np.random.default_rng([seed, 99]), list[tuple[int, int]]()
    taken: list[int] = []
    for b in random.permutation(np.arange(APART + 100, len(city) - 30)).tolist():
        a = int(random.integers(30, b - APART))
        if any(abs(b - other) < 25 for other in taken) or _same_place(city, a, b, margin=3.0):
            continue
        chosen.append((a, b))
        taken.append(b)
        if len(chosen) == pairs:
            break
    return tuple(chosen)


def _accepted(mapper: Mapper, city: City) -> list[tuple[int, int]]:
    """Middle frames of the chunks that loop edges tie: edges that a second loop has confirmed are
    among them."""
    middle = {}
    trajectory = mapper.live_map.trajectory
    for frame in trajectory.frame_ids:
        middle.setdefault(trajectory.chunk_of(frame), []).append(frame)
    pairs = [(e.a, e.b) for e in mapper.live_map.graph.edges if e.kind == "loop"]
    near = [(middle[a], middle[b]) for a, b in pairs]
    return [_closest(city, *ends) for ends in near]


def _closest(city: City, first: list[int], second: list[int]) -> tuple[int, int]:
    places = city.T_world_camera[:, :3, 3]
    apart = np.linalg.norm(places[first][:, None] - places[second][None], axis=2)
    i, j = np.unravel_index(int(apart.argmin()), apart.shape)
    return first[i], second[j]


def _pair(event: Event) -> tuple[int, int]:
    first, second = re.findall(r"frames (\d+) and (\d+)", event.message)[0]
    return int(first), int(second)


def _same_place(city: City, a: int, b: int, margin: float = 1.0) -> bool:
    return bool(
        np.linalg.norm(city.T_world_camera[a, :3, 3] - city.T_world_camera[b, :3, 3])
        < margin * SAME_PLACE
    )
