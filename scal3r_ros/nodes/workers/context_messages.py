"""Group plans and signs of life as messages, and back; work for a worker out of `Chunk`."""

from __future__ import annotations

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from scal3r_ros.msg import Chunk as ChunkMessage
from scal3r_ros.msg import ChunkPrediction as PredictionMessage
from scal3r_ros.msg import ContextState, WorkerState
from scal3r_ros.nodes.base.conversions import fill
from scal3r_ros.nodes.workers.chunk_conversions import (
    chunk_from_message,
    failure_to_message,
    prediction_to_message,
)
from scal3r_ros.reconstruct.interface import OutOfDeviceMemory, ReconstructionFailed
from scal3r_ros.workers.membership import Origin, Plan, Report
from scal3r_ros.workers.tasks import Answer, Assignment, Work, WorkerStatus

STATE_QOS = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""The newest plan, also for those who come late."""
HEARTBEAT_QOS = QoSProfile(depth=64, reliability=ReliabilityPolicy.RELIABLE)
BULK_QOS = QoSProfile(depth=32, reliability=ReliabilityPolicy.RELIABLE)
"""Chunks and predictions, tens of MB each; depth is the most chunks of one round at a worker."""
USABLE = (ContextState.STATE_READY, ContextState.STATE_DEGRADED)


def chunk_topic(worker: str) -> str:
    return f"{worker}/chunk"


def prediction_topic(worker: str) -> str:
    return f"{worker}/prediction"


def assignment_from_state(state: ContextState) -> Assignment | None:
    """The plan that workers follow; None while there is none."""
    if not state.workers or not state.rendezvous:
        return None
    address, _, port = state.rendezvous.rpartition(":")
    return Assignment(
        state.generation,
        tuple(state.workers),
        address,
        int(port),
        Origin(state.origin, state.origin_key, state.origin_epoch),
        state.snapshot_request,
    )


def report_from_message(message: WorkerState) -> Report:
    """What the membership wants to know of a sign of life."""
    return Report(
        message.worker,
        message.fingerprint,
        message.state,
        message.generation,
        message.committed_round,
    )


def worker_message(worker: str, fingerprint: str, status: WorkerStatus) -> WorkerState:
    """Sign of life of a worker; the node adds stamp, host and device."""
    message = WorkerState(
        worker=worker,
        fingerprint=fingerprint,
        state=status.state,
        generation=status.generation,
        rank=status.rank,
        round=status.round,
        committed_round=status.committed,
        chunks_merged=status.memory.chunks,
        snapshot_done=status.snapshot_done,
        staleness=status.staleness,
        sync_bytes=status.sync_bytes,
        sync_seconds=status.sync_seconds,
        round_seconds=status.round_seconds,
        digest=status.memory.digest,
        message=status.message,
    )
    message.layers = fill(np.array(status.memory.layers, np.uint32), "I")
    message.norms = fill(np.array(status.memory.norms, np.float64), "d")
    return message


def state_message(plan: Plan, state: str, reports: dict[str, WorkerState]) -> ContextState:
    """The plan and what its members report; routing fields of the node are added by it."""
    message = ContextState(
        state=state,
        generation=plan.generation,
        workers=list(plan.workers),
        message=plan.reason,
    )
    members = [reports[name] for name in plan.workers if name in reports]
    entered = [m for m in members if m.generation == plan.generation]
    if entered:
        first = entered[0]
        message.round = max(m.round for m in entered)
        message.committed_round = max(0, *(m.committed_round for m in entered))
        message.chunks_merged = max(m.chunks_merged for m in entered)
        message.staleness = max(m.staleness for m in entered)
        message.sync_bytes = max(m.sync_bytes for m in entered)
        message.sync_seconds = max(m.sync_seconds for m in entered)
        message.round_seconds = max(m.round_seconds for m in entered)
        message.layers, message.norms, message.digest = first.layers, first.norms, first.digest
    return message


def work_from_message(message: ChunkMessage) -> Work:
    """The work; `ValueError` if the arrays of the message do not fit together."""
    return Work(
        generation=message.generation,
        round=message.round,
        size=message.round_size,
        share=message.share,
        place=message.place,
        chunk=chunk_from_message(message) if message.share else None,
        contribute=message.contribute,
        token=message.run_id,
    )


def answer_message(answer: Answer, rank: int) -> PredictionMessage:
    """A worker's answer."""
    work, result = answer.work, answer.result
    if isinstance(result, Exception):
        assert work.chunk is not None, "only a chunk can fail"
        message = failure_to_message(work.chunk.index, ReconstructionFailed(str(result)))
        message.out_of_memory = isinstance(result, OutOfDeviceMemory)
    else:
        message = prediction_to_message(result)
    message.absorbed, message.retry = answer.absorbed, answer.retry
    message.run_id, message.rank = work.token, rank
    message.generation, message.round = work.generation, work.round
    return message
