"""Frames, chunks and predictions as facts and named arrays, and back: the one place that knows.

Facts are plain values (JSON can hold them), arrays are contiguous. What carries them is up to the
caller: ROS messages, bytes between processes, shared memory, files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scal3r_ros.records import Chunk, ChunkPrediction, Frame

Arrays = dict[str, np.ndarray]
_UNKNOWN = np.full((3, 3), np.nan)
_PER_FRAME = {
    "T_chunk_camera": (np.float64, (4, 4)),
    "intrinsics": (np.float64, (3, 3)),
    "depth": (np.float32, ("H", "W")),
    "confidence": (np.float32, ("H", "W")),
    "rgb": (np.uint8, ("H", "W", 3)),
}
_OPTIONAL = {"descriptors": (np.float32, (-1,)), "points": (np.float32, ("H", "W", 3))}


@dataclass(frozen=True)
class Packed:
    """A record taken apart."""

    facts: dict[str, Any]
    arrays: Arrays


def pack_frames(frames: Sequence[Frame]) -> Arrays:
    """`frame_ids`, `stamps_ns`, `heights`, `widths` (S), `intrinsics` (S, 3, 3) with NaN where
    unknown, and all images one behind the other in `rgb`."""
    known = [_UNKNOWN if f.intrinsics is None else f.intrinsics for f in frames]
    return {
        "frame_ids": np.array([f.id for f in frames], np.uint64),
        "stamps_ns": np.array([f.stamp_ns for f in frames], np.int64),
        "heights": np.array([f.rgb.shape[0] for f in frames], np.uint32),
        "widths": np.array([f.rgb.shape[1] for f in frames], np.uint32),
        "intrinsics": np.array(known, np.float64).reshape(-1, 3, 3),
        "rgb": np.concatenate([np.zeros(0, np.uint8), *(f.rgb.ravel() for f in frames)]),
    }


def unpack_frames(arrays: Mapping[str, np.ndarray]) -> tuple[Frame, ...]:
    """The frames; images are views of `rgb`. `ValueError` if the arrays do not fit together."""
    ids = arrays["frame_ids"].tolist()
    count = len(ids)
    heights, widths = (
        shaped(arrays, name, np.uint32, (count,)).tolist() for name in ("heights", "widths")
    )
    ends = np.cumsum([3 * h * w for h, w in zip(heights, widths)], dtype=np.int64)
    pixels = shaped(arrays, "rgb", np.uint8, (int(ends[-1]) if count else 0,))
    images = np.split(pixels, ends[:-1])
    stamps = shaped(arrays, "stamps_ns", np.int64, (count,)).tolist()
    matrices = shaped(arrays, "intrinsics", np.float64, (count, 3, 3))
    return tuple(
        Frame(number, stamp, image.reshape(h, w, 3), None if np.isnan(K[0, 0]) else K)
        for number, stamp, image, h, w, K in zip(ids, stamps, images, heights, widths, matrices)
    )


def pack_chunk(chunk: Chunk) -> Packed:
    facts = {
        "index": chunk.index,
        "session": chunk.session,
        "kind": chunk.kind,
        "overlap_ids": list(chunk.overlap_ids),
        "first_size": list(chunk.first_size or ()),
    }
    return Packed(facts, pack_frames(chunk.frames))


def unpack_chunk(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Chunk:
    """The chunk; `ValueError` if its arrays do not fit together."""
    return Chunk(
        facts["index"],
        facts["session"],
        unpack_frames(arrays),
        tuple(map(int, facts["overlap_ids"])),
        facts["kind"],
        tuple(facts["first_size"]) or None,
    )


def pack_prediction(prediction: ChunkPrediction) -> Packed:
    facts = {
        "chunk_index": prediction.chunk_index,
        "frame_ids": list(prediction.frame_ids),
        "missing_ids": list(prediction.missing_ids),
        "gauge": prediction.gauge,
        "starts_segment": prediction.starts_segment,
        "memory_version": prediction.memory_version,
        "timings": dict(prediction.timings),
        "note": prediction.note,
    }
    arrays = {}
    for name, (dtype, _) in {**_PER_FRAME, **_OPTIONAL}.items():
        value = getattr(prediction, name)
        if value is not None:
            arrays[name] = np.ascontiguousarray(value, dtype)
    return Packed(facts, arrays)


def unpack_prediction(
    facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], size: tuple[int, int] | None = None
) -> ChunkPrediction:
    """The prediction. Arrays may be flat if `size`, (height, width) of the depth, is given.
    `ValueError` if they do not fit together."""
    count = len(facts["frame_ids"])
    height, width = arrays["depth"].shape[1:] if size is None else size
    places = {"H": height, "W": width}
    found: Arrays = {}
    for name, (dtype, shape) in {**_PER_FRAME, **_OPTIONAL}.items():
        if name in _PER_FRAME or name in arrays:
            sides = [places.get(side, side) for side in shape]  # type: ignore[call-overload]
            found[name] = shaped(arrays, name, dtype, (count, *sides))
    return ChunkPrediction(
        facts["chunk_index"],
        tuple(map(int, facts["frame_ids"])),
        missing_ids=tuple(map(int, facts["missing_ids"])),
        gauge=facts["gauge"],
        starts_segment=facts["starts_segment"],
        memory_version=facts["memory_version"],
        timings=dict(facts["timings"]),
        note=facts.get("note", ""),
        **found,
    )


def shaped(
    arrays: Mapping[str, np.ndarray], name: str, dtype: type, shape: tuple[int, ...]
) -> np.ndarray:
    """The named array, flat or not, as (count, ...); -1 is whatever is left."""
    values = arrays[name]
    if values.dtype != dtype:
        raise ValueError(f"{name} is {values.dtype}, expected {np.dtype(dtype)}")
    known = int(np.prod([side for side in shape if side >= 0]))
    fits = values.size == known if -1 not in shape else known and values.size % known == 0
    if not fits:
        raise ValueError(f"{name} has {values.size} elements, expected {shape}")
    return values.reshape(shape)
