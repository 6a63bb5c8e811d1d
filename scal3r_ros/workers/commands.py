"""What rank 0 of torchrun tells the other ranks, and what they answer, as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.records import Chunk
from scal3r_ros.records_arrays import (
    Packed,
    pack_chunk,
    pack_prediction,
    unpack_chunk,
    unpack_prediction,
)
from scal3r_ros.workers.hand_out import Result
from scal3r_ros.workers.packing import pack, unpack


def pack_chunks(command: dict[str, Any], chunks: Sequence[Chunk]) -> bytes:
    """A command with chunks."""
    return _pack(command, [pack_chunk(chunk) for chunk in chunks])


def unpack_chunks(data: bytes) -> tuple[dict[str, Any], list[Chunk]]:
    command, records = _unpack(data)
    return command, [unpack_chunk(record.facts, record.arrays) for record in records]


def pack_results(answer: dict[str, Any], results: Sequence[Result]) -> bytes:
    """An answer with one result per chunk."""
    failures = [str(r) if isinstance(r, ReconstructionFailed) else None for r in results]
    good = [pack_prediction(r) for r in results if not isinstance(r, ReconstructionFailed)]
    return _pack({**answer, "failures": failures}, good)


def unpack_results(data: bytes) -> tuple[dict[str, Any], list[Result]]:
    answer, records = _unpack(data)
    good = iter(records)
    results: list[Result] = []
    for failure in answer.pop("failures"):
        if failure is not None:
            results.append(ReconstructionFailed(failure))
            continue
        record = next(good)
        results.append(unpack_prediction(record.facts, record.arrays))
    return answer, results


def _pack(head: Mapping[str, Any], records: Sequence[Packed]) -> bytes:
    arrays = {f"{i}.{name}": v for i, r in enumerate(records) for name, v in r.arrays.items()}
    header = {"head": json.dumps(head), "facts": json.dumps([r.facts for r in records])}
    return pack(header, arrays)


def _unpack(data: bytes) -> tuple[dict[str, Any], list[Packed]]:
    header, arrays = unpack(data)
    records = [Packed(facts, {}) for facts in json.loads(header["facts"])]
    for name, value in arrays.items():
        number, _, own = name.partition(".")
        records[int(number)].arrays[own] = np.asarray(value)
    return json.loads(header["head"]), records
