"""Chunks and predictions as bytes, for processes that talk without ROS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.records import Chunk, ChunkPrediction, Frame, split_images
from scal3r_ros.workers.packing import pack, unpack

Result = ChunkPrediction | ReconstructionFailed
_UNKNOWN = np.full((3, 3), np.nan)
_ARRAYS = ("T_chunk_camera", "intrinsics", "depth", "confidence", "rgb", "descriptors", "points")


def pack_chunks(command: dict[str, Any], chunks: Sequence[Chunk]) -> bytes:
    """A command with chunks."""
    arrays: dict[str, np.ndarray] = {}
    heads = []
    for i, chunk in enumerate(chunks):
        known = [_UNKNOWN if f.intrinsics is None else f.intrinsics for f in chunk.frames]
        arrays[f"{i}.rgb"] = np.concatenate([frame.rgb.ravel() for frame in chunk.frames])
        arrays[f"{i}.intrinsics"] = np.stack(known).astype(np.float64)
        heads.append(
            {
                "index": chunk.index,
                "session": chunk.session,
                "kind": chunk.kind,
                "overlap_ids": list(chunk.overlap_ids),
                "frame_ids": list(chunk.frame_ids),
                "stamps_ns": [frame.stamp_ns for frame in chunk.frames],
                "sizes": [frame.rgb.shape for frame in chunk.frames],
                "first_size": chunk.first_size,
            }
        )
    return pack({"command": json.dumps(command), "chunks": json.dumps(heads)}, arrays)


def unpack_chunks(data: bytes) -> tuple[dict[str, Any], list[Chunk]]:
    header, arrays = unpack(data)
    chunks = []
    for i, head in enumerate(json.loads(header["chunks"])):
        frames = tuple(
            Frame(number, stamp, rgb, None if np.isnan(K[0, 0]) else K)
            for number, stamp, rgb, K in zip(
                head["frame_ids"],
                head["stamps_ns"],
                split_images(arrays[f"{i}.rgb"], head["sizes"]),
                arrays[f"{i}.intrinsics"],
            )
        )
        first = head["first_size"]
        chunks.append(
            Chunk(
                head["index"],
                head["session"],
                frames,
                tuple(head["overlap_ids"]),
                head["kind"],
                tuple(first) if first else None,
            )
        )
    return json.loads(header["command"]), chunks


def pack_results(answer: dict[str, Any], results: Sequence[Result]) -> bytes:
    """An answer with one result per chunk."""
    arrays: dict[str, np.ndarray] = {}
    heads: list[dict[str, Any]] = []
    for i, result in enumerate(results):
        if isinstance(result, ReconstructionFailed):
            heads.append({"failure": str(result)})
            continue
        for name in _ARRAYS:
            value = getattr(result, name)
            if value is not None:
                arrays[f"{i}.{name}"] = value
        heads.append(
            {
                "chunk_index": result.chunk_index,
                "frame_ids": list(result.frame_ids),
                "missing_ids": list(result.missing_ids),
                "memory_version": result.memory_version,
                "timings": dict(result.timings),
            }
        )
    return pack({"answer": json.dumps(answer), "results": json.dumps(heads)}, arrays)


def unpack_results(data: bytes) -> tuple[dict[str, Any], list[Result]]:
    header, arrays = unpack(data)
    results: list[Result] = []
    for i, head in enumerate(json.loads(header["results"])):
        if "failure" in head:
            results.append(ReconstructionFailed(head["failure"]))
            continue
        results.append(
            ChunkPrediction(
                head["chunk_index"],
                tuple(head["frame_ids"]),
                T_chunk_camera=arrays[f"{i}.T_chunk_camera"],
                intrinsics=arrays[f"{i}.intrinsics"],
                depth=arrays[f"{i}.depth"],
                confidence=arrays[f"{i}.confidence"],
                rgb=arrays[f"{i}.rgb"],
                missing_ids=tuple(head["missing_ids"]),
                descriptors=arrays.get(f"{i}.descriptors"),
                points=arrays.get(f"{i}.points"),
                memory_version=head["memory_version"],
                timings=head["timings"],
            )
        )
    return json.loads(header["answer"]), results
