"""A mapper's state as arrays and facts, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from scal3r_ros.io.map_store import BadMapFile
from scal3r_ros.mapping.map_quality import MapQuality
from scal3r_ros.mapping.point_map import PointMap
from scal3r_ros.mapping.pose_graph import PoseGraph
from scal3r_ros.mapping.trajectory import Trajectory
from scal3r_ros.pipeline.chunk_queue import ChunkQueue
from scal3r_ros.pipeline.live_map import LiveMap
from scal3r_ros.pipeline.map_change import OpenChunk
from scal3r_ros.pipeline.mapping_state import MappingState
from scal3r_ros.reconstruct.interface import MemoryState
from scal3r_ros.records import Chunk, ChunkSummary, Frame
from scal3r_ros.records_arrays import Arrays, pack_prediction, unpack_prediction


def pack_state(
    state: MappingState, memory: MemoryState | None, round_size: int | None
) -> tuple[Arrays, dict[str, Any]]:
    """Everything, the reconstructor's memory included unless it is lost; `round_size` is how many
    chunks it takes at a time."""
    map_arrays, map_facts = pack_live_map(state.live_map)
    frame_arrays, frame_facts = pack_queue(state.chunks)
    memory_arrays, memory_facts = ({}, None) if memory is None else pack_memory(memory)
    chunks, absorbed = state.chunks, 0
    if memory is not None and not state.history.remembers:  # a second pass counts by itself
        absorbed = chunks.absorbed_by(memory.version, round_size)
    kept, kept_ns = state.parallax.state()
    arrays = map_arrays | frame_arrays | memory_arrays | state.loops.state()
    arrays |= {} if kept is None else {"parallax.kept": kept}
    facts = {
        "assembly": map_facts,
        "frames": frame_facts,
        "memory": memory_facts,
        "absorbed": absorbed,
        "counters": dict(state.counters),
        "seconds": dict(state.seconds),
        "next_frame_id": state.next_frame_id,
        "last_stamp_ns": state.last_stamp_ns,
        "kept_ns": kept_ns,
    }
    return arrays, facts


def unpack_state(state: MappingState, arrays: Mapping[str, np.ndarray], facts: Mapping) -> None:
    """Fill a new state."""
    unpack_live_map(state.live_map, arrays, facts["assembly"])
    unpack_queue(state.chunks, arrays, facts["frames"])
    version = 0 if facts["memory"] is None else facts["memory"]["version"]
    state.chunks.absorbed = int(facts.get("absorbed", 0))  # not in older maps
    state.chunks.contributed = version - state.chunks.absorbed
    state.parallax.restore(arrays.get("parallax.kept"), int(facts["kept_ns"]))
    state.loops.restore(arrays)
    state.counters.update({name: int(count) for name, count in facts["counters"].items()})
    state.seconds.update({name: float(spent) for name, spent in facts["seconds"].items()})
    state.next_frame_id, last = int(facts["next_frame_id"]), facts["last_stamp_ns"]
    state.last_stamp_ns = None if last is None else int(last)


def pack_live_map(live_map: LiveMap) -> tuple[Arrays, dict[str, Any]]:
    """Graph, trajectory, points, the open chunk and the scale."""
    arrays: Arrays = {}
    if live_map.graph.nodes:
        arrays |= _prefixed("graph", live_map.graph.state())
        arrays |= _prefixed("trajectory", live_map.trajectory.state())
    if len(live_map.points):
        arrays |= _prefixed("points", live_map.points.state())
    arrays |= _prefixed("quality", live_map.quality.state())
    facts: dict[str, Any] = {"part": live_map.part, "revision": live_map.revision}
    facts["scale"], facts["axes"] = asdict(live_map.scale), live_map.scale_and_level.axes
    arrays |= _prefixed("scale", live_map.scale_and_level.scale.state())
    facts["open"] = None
    if live_map.open is not None:
        prediction = live_map.open.prediction
        arrays |= _prefixed("open", pack_prediction(prediction).arrays)
        facts["open"] = {
            "outline": asdict(live_map.open.summary),
            "frame_ids": prediction.frame_ids,
            "waiting": live_map.open.waiting,
        }
    return arrays, facts


def unpack_live_map(
    live_map: LiveMap, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> None:
    """Fill a new live_map."""
    live_map.part, live_map.revision = facts["part"], facts["revision"]
    if graph := _group("graph", arrays):
        live_map.graph = PoseGraph.restore(graph)
        live_map.trajectory = Trajectory.restore(_group("trajectory", arrays))
    if points := _group("points", arrays):
        live_map.points = PointMap.restore(live_map.points.config, points)
    live_map.quality = MapQuality.restore(_group("quality", arrays))
    live_map.scale_and_level.scale.restore(facts["scale"], _group("scale", arrays))
    live_map.scale_and_level.axes = facts.get("axes", "assumed")  # absent from older maps
    if facts["open"] is not None:
        summary = ChunkSummary.read(facts["open"]["outline"])
        known = {
            "chunk_index": summary.index,
            "frame_ids": facts["open"]["frame_ids"],
            "missing_ids": (),
            "gauge": "free",  # how it was joined is past; the next chunk says how that one joins
            "starts_segment": False,
            "memory_version": 0,
            "timings": {},
        }
        prediction = unpack_prediction(known, _group("open", arrays))
        live_map.open = OpenChunk(summary, prediction, tuple(facts["open"]["waiting"]))


def pack_queue(chunks: ChunkQueue) -> tuple[Arrays, dict[str, Any]]:
    """Frames that wait for their chunk or for a round, images without loss."""
    frames, chunker = chunks.frames, chunks.chunker
    images = [cv2.imencode(".png", f.rgb[..., ::-1])[1].ravel() for f in frames]
    unknown = np.zeros((3, 3))
    arrays = {
        "frames.id": np.array([f.id for f in frames], np.int64),
        "frames.stamp_ns": np.array([f.stamp_ns for f in frames], np.int64),
        "frames.intrinsics": np.array(
            [unknown if f.intrinsics is None else f.intrinsics for f in frames]
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
        "waiting": [asdict(chunk.summary) for chunk in chunks.waiting],
    }
    return arrays, facts


def unpack_queue(
    chunks: ChunkQueue, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> None:
    """Fill a new queue."""
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
    chunker = chunks.chunker
    chunker.restore(pending, facts["overlap"], facts["session"], facts["next_index"], first_size)
    chunker.size = facts["size"]
    summaries = [ChunkSummary.read(values) for values in facts["waiting"]]
    chunks.waiting = [
        Chunk(
            o.index,
            o.session,
            tuple(frames[i] for i in o.frame_ids),
            o.overlap_ids,
            first_size=first_size,
        )
        for o in summaries
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
