"""The files that a map leaves for people and other programs.

`trajectory.txt` and `map.ply` hold the largest connected part only: where another part lies
relative to it is unknown, so it gets files of its own.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from scal3r_ros.io.cloud_pictures import draw_perspective, draw_top_view
from scal3r_ros.io.pictures import draw_trajectory
from scal3r_ros.io.ply import write_cloud
from scal3r_ros.io.report import versions, write_report
from scal3r_ros.io.tum import write_trajectory
from scal3r_ros.mapping.submap import PointCloud
from scal3r_ros.options import to_dict
from scal3r_ros.pipeline.map_view import Part, connected_parts
from scal3r_ros.pipeline.mapper import Mapper
from scal3r_ros.pipeline.progress import Progress
from scal3r_ros.reconstruct.choice import choose
from scal3r_ros.reconstruct.interface import known_memory
from scal3r_ros.records import TrajectoryPose

REPORT = "report.json"
"""The last file of a result that is written."""
_OPTICAL_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""Turns optical axes (y down, z forward) so that z is up, for pictures."""
LIVE_TRAJECTORY = "trajectory_live.txt"
"""Each pose of the largest part as it was published first, before any correction."""


def export(
    mapper: Mapper,
    folder: str | Path,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write trajectory, cloud, pictures and report of the present revision, each file atomically.

    `facts` are added to the report. Returns the files, the report last.
    """
    folder, progress = Path(folder), progress or Progress()
    progress.at("collecting points")
    parts = connected_parts(mapper.live_map)
    files = []
    for number, part in enumerate(parts or [Part((), PointCloud.empty())]):
        suffix = "" if number == 0 else f"_part{number + 1}"
        progress.at(f"part {number + 1} of {len(parts)}", number / (len(parts) + 1))
        files += [folder / f"trajectory{suffix}.txt", folder / f"map{suffix}.ply"]
        write_trajectory(files[-2], part.poses)
        cloud = part.cloud
        write_cloud(files[-1], cloud.points, cloud.colors, cloud.confidence, _note(mapper))
    files.append(folder / LIVE_TRAJECTORY)
    write_trajectory(files[-1], _as_told(mapper, parts[0].poses if parts else ()))
    _remove_stale(folder, files)
    progress.at("pictures", len(parts) / (len(parts) + 1))
    files += _draw(mapper, parts, folder)
    write_report(folder / REPORT, {**report(mapper, parts), **(facts or {})})
    return [*files, folder / REPORT]


def nearest_surface(part: Part) -> float | None:
    """Median distance of the cameras to the nearest map point; None without points or cameras."""
    if not len(part.cloud) or not part.poses:
        return None
    some = part.cloud.points[:: max(1, len(part.cloud) // 20_000)]
    cameras = part.positions[:: max(1, len(part.poses) // 100)]
    return float(np.median(cKDTree(some).query(cameras)[0]))


def report(mapper: Mapper, parts: list[Part]) -> dict[str, Any]:
    """The facts of a map; times and memory are under `measured`, everything else repeats."""
    graph = mapper.graph()
    scale, memory = mapper.scale, known_memory(mapper.reconstructor)
    lengths = [
        float(np.linalg.norm(np.diff(part.positions, axis=0), axis=1).sum()) for part in parts
    ]
    return {
        "versions": versions(),
        "options": to_dict(mapper.config),
        "reconstructor": mapper.reconstructor.name,
        "reconstructor_choice": choose(mapper.config).reason,
        "map_revision": mapper.map_revision,
        "counters": dict(mapper.counters),
        "parts": [
            {"frames": len(p.poses), "points": len(p.cloud), "path_length": length}
            for p, length in zip(parts, lengths)
        ],
        "quality": mapper.live_map.quality.figures(),
        "loops": [list(edge[:2]) for edge in graph.edges if edge[2] == "loop"],
        "scale": {
            "source": scale.source,
            "known": scale.known,
            "metres_per_unit": scale.value if scale.known else None,
            "variance": scale.variance,
            "applied": scale.applied if scale.frozen else None,
            "unit": unit(mapper),
        },
        "memory": {
            "absorbed_chunks": None if memory is None else memory.version,
            "map_bytes": mapper.nbytes,
        },
        "measured": {
            "seconds": {stage: round(s, 3) for stage, s in mapper.seconds.items()},
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        },
    }


def _as_told(mapper: Mapper, poses: tuple[TrajectoryPose, ...]) -> tuple[TrajectoryPose, ...]:
    told = mapper.live_map.trajectory.told()
    return tuple(
        replace(pose, T_map_camera=told[pose.frame_id]) for pose in poses if pose.frame_id in told
    )


def unit(mapper: Mapper) -> str:
    """What map coordinates are measured in."""
    if mapper.scale.frozen:
        return "metres"
    return f"map units, scale {'not certain enough' if mapper.scale.known else 'unknown'}"


def _note(mapper: Mapper) -> str:
    frame = "optical axes of the first camera" if _optical(mapper) else "z up"
    return f"scal3r_ros map revision {mapper.map_revision}, {unit(mapper)}, {frame}"


def _optical(mapper: Mapper) -> bool:
    return mapper.config.map.alignment == "none"


def _draw(mapper: Mapper, parts: list[Part], folder: Path) -> list[Path]:
    turn = _OPTICAL_UP if _optical(mapper) else np.eye(3)
    graph = mapper.graph()
    place = dict(zip(graph.chunks, graph.positions @ turn.T))
    loops = [[place[a], place[b]] for a, b, kind in graph.edges if kind == "loop"]
    tracks = [part.positions @ turn.T for part in parts]
    frames = sum(len(part.poses) for part in parts)
    title = f"{frames} frames, {len(loops)} loops, revision {mapper.map_revision}, {unit(mapper)}"
    files = [folder / name for name in ("trajectory.png", "map_top.png", "map_view.png")]
    short = "m" if mapper.scale.frozen else "map units"
    draw_trajectory(files[0], tracks, np.array(loops).reshape(-1, 2, 3), short, title)
    cloud = parts[0].cloud if parts else PointCloud.empty()
    positions = tracks[0] if parts else np.zeros((0, 3))
    for draw, path in zip((draw_top_view, draw_perspective), files[1:]):
        draw(path, cloud.points @ turn.T, cloud.colors, positions)
    return files


def _remove_stale(folder: Path, files: list[Path]) -> None:
    """Parts of an earlier, more disconnected map would be taken for parts of this one."""
    for pattern in ("trajectory_part*.txt", "map_part*.ply"):
        for path in folder.glob(pattern):
            if path not in files:
                path.unlink()
