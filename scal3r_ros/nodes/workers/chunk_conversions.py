"""Chunks and predictions as messages, and back into records.

The routing fields of `Chunk` and `ChunkPrediction` (run, generation, round, rank) belong to the
caller, who sets them on the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scal3r_ros.msg import Chunk as ChunkMessage
from scal3r_ros.msg import ChunkPrediction as PredictionMessage
from scal3r_ros.nodes.base.conversions import fill, header
from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.records import Chunk, ChunkPrediction, Frame, split_images

_UNKNOWN = np.full((3, 3), np.nan)


def chunk_to_message(chunk: Chunk, frame_id: str = "") -> ChunkMessage:
    """Message of a chunk."""
    message = ChunkMessage(
        header=header(frame_id, max(frame.stamp_ns for frame in chunk.frames)),
        index=chunk.index,
        session=chunk.session,
        kind=chunk.kind,
    )
    if chunk.first_size is not None:
        message.first_height, message.first_width = chunk.first_size
    message.heights = _integers([frame.rgb.shape[0] for frame in chunk.frames], "I")
    message.widths = _integers([frame.rgb.shape[1] for frame in chunk.frames], "I")
    message.frame_ids = _integers(chunk.frame_ids, "Q")
    message.stamps_ns = _integers([frame.stamp_ns for frame in chunk.frames], "q")
    message.overlap_ids = _integers(chunk.overlap_ids, "Q")
    message.rgb = fill(np.concatenate([frame.rgb.ravel() for frame in chunk.frames]), "B")
    known = [_UNKNOWN if f.intrinsics is None else f.intrinsics for f in chunk.frames]
    if any(frame.intrinsics is not None for frame in chunk.frames):
        message.intrinsics = _doubles(np.stack(known))
    return message


def chunk_from_message(message: ChunkMessage) -> Chunk:
    """The chunk of a message; `ValueError` if its arrays do not fit together."""
    count = len(message.frame_ids)
    heights = _shaped(message.heights, np.uint32, (count,), "heights").tolist()
    widths = _shaped(message.widths, np.uint32, (count,), "widths").tolist()
    sizes = [(height, width, 3) for height, width in zip(heights, widths)]
    pixels = _shaped(message.rgb, np.uint8, (sum(3 * h * w for h, w, _ in sizes),), "rgb")
    stamps = _shaped(message.stamps_ns, np.int64, (count,), "stamps_ns")
    matrices: Sequence[np.ndarray | None] = [None] * count
    if len(message.intrinsics):
        stack = _shaped(message.intrinsics, np.float64, (count, 3, 3), "intrinsics")
        matrices = [None if np.isnan(K[0, 0]) else K for K in stack]
    frames = tuple(
        Frame(int(i), int(stamp), rgb, K)
        for i, stamp, rgb, K in zip(
            message.frame_ids, stamps, split_images(pixels, sizes), matrices
        )
    )
    overlap = tuple(map(int, message.overlap_ids))
    first = (message.first_height, message.first_width)
    return Chunk(
        message.index,
        message.session,
        frames,
        overlap,
        message.kind,
        first if all(first) else None,
    )


def prediction_to_message(prediction: ChunkPrediction) -> PredictionMessage:
    """Message of a prediction."""
    height, width = prediction.depth.shape[1:]
    message = PredictionMessage(
        chunk_index=prediction.chunk_index,
        success=True,
        height=height,
        width=width,
        memory_version=prediction.memory_version,
    )
    message.frame_ids = _integers(prediction.frame_ids, "Q")
    message.missing_ids = _integers(prediction.missing_ids, "Q")
    message.poses = _doubles(prediction.T_chunk_camera)
    message.intrinsics = _doubles(prediction.intrinsics)
    message.depth = _floats(prediction.depth)
    message.confidence = _floats(prediction.confidence)
    message.rgb = fill(prediction.rgb, "B")
    if prediction.descriptors is not None:
        message.descriptor_size = prediction.descriptors.shape[1]
        message.descriptors = _floats(prediction.descriptors)
    if prediction.points is not None:
        message.points = _floats(prediction.points)
    message.timing_names, message.timing_seconds = _timings(prediction.timings)
    return message


def failure_to_message(chunk_index: int, failure: ReconstructionFailed) -> PredictionMessage:
    """The answer for a chunk that could not be reconstructed."""
    return PredictionMessage(chunk_index=chunk_index, success=False, failure=str(failure))


def prediction_from_message(message: PredictionMessage) -> ChunkPrediction | ReconstructionFailed:
    """The prediction, or the failure that it reports; `ValueError` if its arrays do not fit."""
    if not message.success:
        return ReconstructionFailed(message.failure)
    count, size = len(message.frame_ids), (message.height, message.width)
    descriptors = points = None
    if message.descriptor_size:
        shape = (count, message.descriptor_size)
        descriptors = _shaped(message.descriptors, np.float32, shape, "descriptors")
    if len(message.points):
        points = _shaped(message.points, np.float32, (count, *size, 3), "points")
    return ChunkPrediction(
        chunk_index=message.chunk_index,
        frame_ids=tuple(map(int, message.frame_ids)),
        T_chunk_camera=_shaped(message.poses, np.float64, (count, 4, 4), "poses"),
        intrinsics=_shaped(message.intrinsics, np.float64, (count, 3, 3), "intrinsics"),
        depth=_shaped(message.depth, np.float32, (count, *size), "depth"),
        confidence=_shaped(message.confidence, np.float32, (count, *size), "confidence"),
        rgb=_shaped(message.rgb, np.uint8, (count, *size, 3), "rgb"),
        missing_ids=tuple(map(int, message.missing_ids)),
        descriptors=descriptors,
        points=points,
        memory_version=message.memory_version,
        timings=dict(zip(message.timing_names, map(float, message.timing_seconds))),
    )


def _timings(timings: Mapping[str, float]):
    return list(timings), _doubles(np.array(list(timings.values())))


def _integers(values: Sequence[int], typecode: str):
    return fill(np.array(values, np.dtype(typecode)), typecode)


def _doubles(values: np.ndarray):
    return fill(np.asarray(values, np.float64), "d")


def _floats(values: np.ndarray):
    return fill(np.asarray(values, np.float32), "f")


def _shaped(values, dtype: type, shape: tuple[int, ...], name: str) -> np.ndarray:
    """View of a message's array; lives as long as the message's memory, which it keeps alive."""
    found: np.ndarray = np.frombuffer(values, dtype) if len(values) else np.zeros(0, dtype)
    if found.size != np.prod(shape, dtype=int):
        raise ValueError(f"{name} has {found.size} elements, expected {shape}")
    return found.reshape(shape)
