"""Chunks and predictions as messages, and back into records.

The routing fields of `Chunk` and `ChunkPrediction` (run, generation, round, rank) belong to the
caller, who sets them on the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scal3r_ros.msg import Chunk as ChunkMessage
from scal3r_ros.msg import ChunkPrediction as PredictionMessage
from scal3r_ros.nodes.base.conversions import fill, header
from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.records import Chunk, ChunkPrediction
from scal3r_ros.records_arrays import (
    pack_chunk,
    pack_prediction,
    unpack_chunk,
    unpack_prediction,
)

_CHUNK_ARRAYS = {
    "frame_ids": "Q", "stamps_ns": "q", "heights": "I", "widths": "I", "rgb": "B",
    "intrinsics": "d",
}  # fmt: skip
_PREDICTION_ARRAYS = {
    "T_chunk_camera": "d", "intrinsics": "d", "depth": "f", "confidence": "f", "rgb": "B",
    "descriptors": "f", "points": "f",
}  # fmt: skip
_FIELD = {"T_chunk_camera": "poses"}
"""Where a message's field has another name."""


def chunk_to_message(chunk: Chunk, frame_id: str = "") -> ChunkMessage:
    """Message of a chunk."""
    packed = pack_chunk(chunk)
    message = ChunkMessage(
        header=header(frame_id, max(frame.stamp_ns for frame in chunk.frames)),
        index=chunk.index,
        session=chunk.session,
        kind=chunk.kind,
        overlap_ids=_integers(chunk.overlap_ids),
    )
    message.first_height, message.first_width = chunk.first_size or (0, 0)
    if all(frame.intrinsics is None for frame in chunk.frames):
        del packed.arrays["intrinsics"]
    _fill(message, packed.arrays, _CHUNK_ARRAYS)
    return message


def chunk_from_message(message: ChunkMessage) -> Chunk:
    """The chunk of a message; `ValueError` if its arrays do not fit together."""
    arrays = _read(message, _CHUNK_ARRAYS, ("intrinsics",))
    arrays.setdefault("intrinsics", np.full((len(message.frame_ids), 3, 3), np.nan))
    first_size = (message.first_height, message.first_width)
    facts = {
        "index": message.index,
        "session": message.session,
        "kind": message.kind,
        "overlap_ids": message.overlap_ids,
        "first_size": first_size if all(first_size) else (),
    }
    return unpack_chunk(facts, arrays)


def prediction_to_message(prediction: ChunkPrediction) -> PredictionMessage:
    """Message of a prediction."""
    height, width = prediction.depth.shape[1:]
    message = PredictionMessage(
        chunk_index=prediction.chunk_index,
        success=True,
        height=height,
        width=width,
        note=prediction.note,
        gauge=prediction.gauge,
        starts_segment=prediction.starts_segment,
        memory_version=prediction.memory_version,
        frame_ids=_integers(prediction.frame_ids),
        missing_ids=_integers(prediction.missing_ids),
        timing_names=list(prediction.timings),
        timing_seconds=fill(np.array(list(prediction.timings.values()), np.float64), "d"),
    )
    if prediction.descriptors is not None:
        message.descriptor_size = prediction.descriptors.shape[1]
    _fill(message, pack_prediction(prediction).arrays, _PREDICTION_ARRAYS)
    return message


def failure_to_message(chunk_index: int, failure: ReconstructionFailed) -> PredictionMessage:
    """The answer for a chunk that could not be reconstructed."""
    return PredictionMessage(chunk_index=chunk_index, success=False, failure=str(failure))


def prediction_from_message(message: PredictionMessage) -> ChunkPrediction | ReconstructionFailed:
    """The prediction, or the failure that it reports; `ValueError` if its arrays do not fit."""
    if not message.success:
        return ReconstructionFailed(message.failure)
    facts = {
        "chunk_index": message.chunk_index,
        "frame_ids": message.frame_ids,
        "missing_ids": message.missing_ids,
        "note": message.note,
        "gauge": message.gauge,
        "starts_segment": message.starts_segment,
        "memory_version": message.memory_version,
        "timings": dict(zip(message.timing_names, map(float, message.timing_seconds))),
    }
    arrays = _read(message, _PREDICTION_ARRAYS, ("descriptors", "points"))
    rows = len(message.frame_ids) * message.descriptor_size
    if "descriptors" in arrays and arrays["descriptors"].size != rows:
        raise ValueError(f"descriptors has {arrays['descriptors'].size} elements, expected {rows}")
    return unpack_prediction(facts, arrays, (message.height, message.width))


def _fill(message: Any, arrays: Mapping[str, np.ndarray], typecodes: Mapping[str, str]) -> None:
    for name, values in arrays.items():
        setattr(message, _FIELD.get(name, name), fill(values, typecodes[name]))


def _read(
    message: Any, typecodes: Mapping[str, str], optional: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Views of a message's arrays, which keep its memory alive; `optional` ones that are empty are
    left out."""
    fields = {name: getattr(message, _FIELD.get(name, name)) for name in typecodes}
    return {
        name: np.frombuffer(values, typecodes[name])
        if len(values)
        else np.zeros(0, typecodes[name])
        for name, values in fields.items()
        if len(values) or name not in optional
    }


def _integers(values):
    return fill(np.array(values, np.uint64), "Q")
