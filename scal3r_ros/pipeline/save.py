"""A mapper as arrays and facts, and back: mapping goes on in the same frame after a restart."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np

from scal3r_ros.io.map_store import BadMapFile
from scal3r_ros.mapping.chunking import Chunker
from scal3r_ros.mapping.point_map import PointMap
from scal3r_ros.mapping.pose_graph import PoseGraph
from scal3r_ros.mapping.trajectory import Trajectory
from scal3r_ros.pipeline.live_map import MapAssembly
from scal3r_ros.pipeline.outlines import ChunkOutline, OpenChunk
from scal3r_ros.reconstruct.interface import MemoryState
from scal3r_ros.records import Chunk, ChunkPrediction, Frame, ScaleEstimate

Arrays = dict[str, np.ndarray]
_PREDICTED = ("T_chunk_camera", "intrinsics", "depth", "confidence", "rgb")
_OPTIONAL = ("descriptors", "points")
_FILES = "files"
"""Folder beside a saved map with a folder of files for each save under way."""


def new_files() -> str:
    """A name for files that go with a map, which no other map uses."""
    return uuid4().hex


@contextmanager
def files_for(folder: Path, facts: dict[str, Any], name: str) -> Iterator[Path]:
    """Where to put files of a map that is written to `folder` inside the block. Those of the map
    that is there now stay until the block ends well, so that a save that dies mixes nothing."""
    facts["files"] = name
    yield folder / _FILES / name
    for path in (folder / _FILES).iterdir():
        if path.name != name:
            shutil.rmtree(path)


def files_of(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Where the files of a saved map are; in maps of older versions, beside it."""
    return folder / _FILES / facts["files"] if "files" in facts else folder


def pack(
    assembly: MapAssembly, chunker: Chunker, waiting: Iterable[Chunk], memory: MemoryState
) -> tuple[Arrays, dict[str, Any]]:
    """Everything of a mapper that is large."""
    arrays, map_facts = pack_assembly(assembly)
    frame_arrays, frame_facts = pack_frames(chunker, waiting)
    memory_arrays, memory_facts = pack_memory(memory)
    facts = {"assembly": map_facts, "frames": frame_facts, "memory": memory_facts}
    return arrays | frame_arrays | memory_arrays, facts


def pack_assembly(assembly: MapAssembly) -> tuple[Arrays, dict[str, Any]]:
    """Graph, trajectory, points, the open chunk and the scale."""
    arrays: Arrays = {}
    if assembly.graph.nodes:
        arrays |= _prefixed("graph", assembly.graph.state())
        arrays |= _prefixed("trajectory", assembly.trajectory.state())
    if len(assembly.points):
        arrays |= _prefixed("points", assembly.points.state())
    facts: dict[str, Any] = {"part": assembly.part, "revision": assembly.revision}
    scale = assembly.references.scale.estimate
    facts["scale"] = asdict(scale)
    arrays["scale.ratios"] = assembly.references.scale.ratios()
    facts["open"] = None
    if assembly.open is not None:
        prediction = assembly.open.prediction
        names = [*_PREDICTED, *(n for n in _OPTIONAL if getattr(prediction, n) is not None)]
        arrays |= {f"open.{name}": getattr(prediction, name) for name in names}
        facts["open"] = {
            "outline": asdict(assembly.open.outline),
            "frame_ids": prediction.frame_ids,
            "waiting": assembly.open.waiting,
        }
    return arrays, facts


def unpack_assembly(
    assembly: MapAssembly, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> None:
    """Fill a new assembly."""
    assembly.part, assembly.revision = facts["part"], facts["revision"]
    if graph := _group("graph", arrays):
        assembly.graph = PoseGraph.restore(graph)
        assembly.trajectory = Trajectory.restore(_group("trajectory", arrays))
    if points := _group("points", arrays):
        assembly.points = PointMap.restore(assembly.points.config, points)
    scale = ScaleEstimate(**facts["scale"])
    assembly.references.scale.restore(scale, arrays["scale.ratios"])
    if facts["open"] is not None:
        outline = ChunkOutline.read(facts["open"]["outline"])
        known = _group("open", arrays)
        prediction = ChunkPrediction(
            outline.index,
            tuple(facts["open"]["frame_ids"]),
            T_chunk_camera=known["T_chunk_camera"],
            intrinsics=known["intrinsics"],
            depth=known["depth"],
            confidence=known["confidence"],
            rgb=known["rgb"],
            descriptors=known.get("descriptors"),
            points=known.get("points"),
        )
        assembly.open = OpenChunk(outline, prediction, tuple(facts["open"]["waiting"]))


def pack_frames(chunker: Chunker, waiting: Iterable[Chunk]) -> tuple[Arrays, dict[str, Any]]:
    """Frames that wait for their chunk or for a round, images without loss."""
    waiting = list(waiting)
    frames = {f.id: f for chunk in waiting for f in chunk.frames}
    frames |= {f.id: f for f in chunker.pending}
    images = [cv2.imencode(".png", f.rgb[..., ::-1])[1].ravel() for f in frames.values()]
    unknown = np.zeros((3, 3))
    arrays = {
        "frames.id": np.array(list(frames), np.int64),
        "frames.stamp_ns": np.array([f.stamp_ns for f in frames.values()], np.int64),
        "frames.intrinsics": np.array(
            [unknown if f.intrinsics is None else f.intrinsics for f in frames.values()]
        ),
        "frames.ends": np.cumsum([len(image) for image in images], dtype=np.int64),
        "frames.images": np.concatenate([np.zeros(0, np.uint8), *images]),
    }
    facts = {
        "pending": [f.id for f in chunker.pending],
        "overlap": len(chunker.overlap_ids),
        "session": chunker.session,
        "next_index": chunker.upcoming_index,
        "size": chunker.size,
        "first_size": chunker.first_size,
        "waiting": [asdict(ChunkOutline.of(chunk)) for chunk in waiting],
    }
    return arrays, facts


def unpack_frames(
    chunker: Chunker, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> list[Chunk]:
    """Fill a new chunker; returns the chunks that wait for a round."""
    ends = arrays["frames.ends"]
    frames = {}
    for row, (frame_id, end) in enumerate(zip(arrays["frames.id"].tolist(), ends.tolist())):
        start = int(ends[row - 1]) if row else 0
        bgr = cv2.imdecode(arrays["frames.images"][start:end], cv2.IMREAD_COLOR)
        if bgr is None:
            raise BadMapFile(f"the image of frame {frame_id} is damaged; go on from another save")
        intrinsics = arrays["frames.intrinsics"][row]
        frames[frame_id] = Frame(
            frame_id,
            int(arrays["frames.stamp_ns"][row]),
            np.ascontiguousarray(bgr[..., ::-1]),
            intrinsics if intrinsics.any() else None,
        )
    pending = [frames[i] for i in facts["pending"]]
    known = facts.get("first_size")  # absent from maps of older versions
    first_size = tuple(known) if known else None
    chunker.restore(pending, facts["overlap"], facts["session"], facts["next_index"], first_size)
    chunker.size = facts["size"]
    outlines = [ChunkOutline.read(values) for values in facts["waiting"]]
    return [
        Chunk(
            o.index,
            o.session,
            tuple(frames[i] for i in o.frame_ids),
            o.overlap_ids,
            first_size=first_size,
        )
        for o in outlines
    ]


def pack_memory(state: MemoryState) -> tuple[Arrays, dict[str, Any]]:
    """The reconstructor's memory."""
    facts = {"kind": state.kind, "fingerprint": state.fingerprint, "version": state.version}
    return _prefixed("memory", state.arrays), facts


def unpack_memory(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> MemoryState:
    return MemoryState(
        facts["kind"], facts["fingerprint"], facts["version"], _group("memory", arrays)
    )


def _prefixed(group: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {f"{group}.{name}": array for name, array in arrays.items()}


def _group(group: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    start = f"{group}."
    return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
