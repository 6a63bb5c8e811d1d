"""Reconstruction by workers: chunks out as numbered rounds, predictions back.

A round whose group broke is done again by whoever is left, unless its memory was committed; then
only the missing predictions are computed again, from the committed memory and without a trace. So
every chunk is absorbed exactly once whatever happens to the workers.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import rclpy
from std_srvs.srv import Trigger

from scal3r_ros.config import DistributedConfig
from scal3r_ros.msg import Chunk as ChunkMessage
from scal3r_ros.msg import ChunkPrediction as PredictionMessage
from scal3r_ros.msg import ContextState
from scal3r_ros.nodes.base.node_config import NodeConfig
from scal3r_ros.nodes.workers.chunk_conversions import chunk_to_message, prediction_from_message
from scal3r_ros.nodes.workers.context_client import ContextClient, ContextUnavailable
from scal3r_ros.reconstruct.interface import (
    MemoryState,
    OutOfDeviceMemory,
    ReconstructionFailed,
)
from scal3r_ros.records import Chunk, ChunkPrediction
from scal3r_ros.srv import LoadContext, SaveContext
from scal3r_ros.workers.shares import shares

Result = ChunkPrediction | ReconstructionFailed
log = logging.getLogger(__name__)
_READS = 1 << 62  # numbers of questions that are in no round


def open_remote(node: rclpy.node.Node, config: NodeConfig) -> RemoteReconstructor:
    """A reconstructor over the workers in the namespace of `node`, with an empty memory."""
    from scal3r_ros.nodes.workers.async_remote import AsyncRemoteReconstructor

    if config.memory.mode not in ("stream", "off", "local"):
        raise ValueError(
            f"memory.mode {config.memory.mode} is not available with workers; set it to stream"
        )
    client = ContextClient(
        node.context, node.get_namespace(), f"{node.get_name()}_rounds", config.distributed
    )
    kind = AsyncRemoteReconstructor if config.distributed.policy == "async" else RemoteReconstructor
    remote = kind(client, config.distributed, config.worker.count)
    try:
        remote.reset()
    except ContextUnavailable:
        remote.close()
        raise
    return remote


@dataclass
class _Attempt:
    """One try at a round."""

    number: int
    group: ContextState
    answers: dict[int, PredictionMessage]
    """By chunk index."""

    @property
    def broken(self) -> bool:
        """Some answer is missing, or says that the group failed."""
        return any(a.retry for a in self.answers.values()) and not self.blamed

    @property
    def blamed(self) -> list[PredictionMessage]:
        """Chunks that were found to be at fault themselves."""
        return [a for a in self.answers.values() if not a.success and not a.retry]


class RemoteReconstructor:
    """Implements `Reconstructor`; to be used by one thread."""

    name = "scal3r"

    def __init__(self, client: ContextClient, config: DistributedConfig, workers: int):
        self.round_size = config.round_size or workers
        self._client = client
        self._config = config
        self._run_id = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._reads = itertools.count(_READS)
        self._keys = itertools.count(1)
        self.redone = 0
        """Rounds that a lost worker took back."""

    def reconstruct(self, chunk: Chunk, contribute: bool = True) -> ChunkPrediction:
        if contribute:
            result = self.reconstruct_round([chunk])[0]
        else:
            try:
                result = self._read(chunk)
            except ContextUnavailable as error:
                raise ReconstructionFailed(str(error)) from error
        if isinstance(result, ReconstructionFailed):
            raise result
        return result

    def reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Result]:
        """One round, done again until it is committed; failures of single chunks are results.

        A chunk that does not fit into a device raises `OutOfDeviceMemory`: no worker has absorbed
        anything then, and the caller can send smaller ones.
        """
        try:
            return self._reconstruct_round(chunks)
        except ContextUnavailable as error:
            return [ReconstructionFailed(str(error)) for _ in chunks]

    def _reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Result]:
        results: dict[int, Result] = {}
        pending = list(chunks)
        after = 0
        for _ in range(self._config.max_attempts):
            attempt = self._try_round(pending, after)
            if attempt.blamed:
                _raise_if_too_large(attempt.blamed)
                for answer in attempt.blamed:
                    results[answer.chunk_index] = ReconstructionFailed(answer.failure)
                pending = [c for c in pending if c.index not in results]
            elif self._is_committed(attempt, pending):
                results |= self._collect(attempt, pending)
                pending = []
            else:
                self.redone += 1
                after = attempt.group.generation
                log.warning("round %d is done again: %s", attempt.number, _reason(attempt))
            if not pending:
                return [results[chunk.index] for chunk in chunks]
        failure = ReconstructionFailed(
            f"the round failed {self._config.max_attempts} times; last: {_reason(attempt)}"
        )
        return [results.get(chunk.index, failure) for chunk in chunks]

    def reset(self) -> None:
        self._checked(self._client.call("reset_context", Trigger.Request()))

    def state(self) -> MemoryState:
        """The committed memory, through the rendezvous store."""
        from scal3r_ros.workers.packing import discard, download, unseal

        key = self._new_key()
        self._checked(self._client.call("save_context", SaveContext.Request(key=key)))
        store, wait = self._store(), self._config.store_timeout
        header, arrays = unseal(download(store, key, wait))
        discard(store, key, wait)
        return MemoryState(header["kind"], header["fingerprint"], int(header["version"]), arrays)

    def restore(self, state: MemoryState) -> None:
        from scal3r_ros.workers.packing import discard, seal, upload

        if state.kind != self.name:
            raise ValueError(
                f"the memory belongs to reconstructor {state.kind!r}, the workers run {self.name!r}"
            )
        key = self._new_key()
        header = {
            "kind": state.kind,
            "fingerprint": state.fingerprint,
            "version": str(state.version),
            "committed": "0",
        }
        store, wait = self._store(), self._config.store_timeout
        upload(store, key, seal(header, state.arrays), wait)
        answer = self._client.call("load_context", LoadContext.Request(key=key))
        discard(store, key, wait)
        if not answer.success:
            raise ValueError(f"the workers refused the memory: {answer.message}")

    def close(self) -> None:
        self._client.close()

    def _try_round(self, chunks: Sequence[Chunk], after: int) -> _Attempt:
        """Hand out one round and wait for what becomes of it."""
        group = self._client.usable_group(after)
        number = next(self._numbers)
        self._client.forget_answers()
        for rank, share in enumerate(shares(len(chunks), len(group.workers))):
            own = chunks[share.offset : share.offset + share.count]
            for place, chunk in enumerate(own, start=share.offset):
                message = chunk_to_message(chunk)
                message.place, message.contribute = place, True
                self._send(message, group, number, rank, share.count, len(chunks))
            if not own:
                idle = ChunkMessage(contribute=True, place=share.offset)
                self._send(idle, group, number, rank, 0, len(chunks))
        return self._wait(group, number, len(chunks), self._config.round_timeout)

    def _wait(self, group: ContextState, number: int, count: int, timeout: float) -> _Attempt:
        def relevant(answers: list[PredictionMessage]) -> dict[int, PredictionMessage]:
            return {
                a.chunk_index: a for a in answers if (a.run_id, a.round) == (self._run_id, number)
            }

        def enough(answers: list[PredictionMessage]) -> bool:
            return len(relevant(answers)) == count

        answers = self._client.wait_for_answers(enough, group.generation, timeout)
        return _Attempt(number, group, relevant(answers))

    def _is_committed(self, attempt: _Attempt, chunks: Sequence[Chunk]) -> bool:
        """Whether the memory has the round; after a loss, as the next group has agreed."""
        complete = len(attempt.answers) == len(chunks)
        if complete and all(a.success for a in attempt.answers.values()):
            return True
        following = self._client.usable_group(attempt.group.generation)
        return following.committed_round >= attempt.number

    def _collect(self, attempt: _Attempt, chunks: Sequence[Chunk]) -> dict[int, Result]:
        """Predictions of a committed round; lost ones are computed again without a trace."""
        late = self._wait(attempt.group, attempt.number, len(chunks), 0.0).answers
        good = {i: a for i, a in {**attempt.answers, **late}.items() if a.success}
        return {
            c.index: prediction_from_message(good[c.index]) if c.index in good else self._read(c)
            for c in chunks
        }

    def _read(self, chunk: Chunk) -> Result:
        """A prediction from the committed memory, by any worker."""
        after = 0
        for _ in range(self._config.max_attempts):
            group = self._client.usable_group(after)
            number = next(self._reads)
            rank = number % len(group.workers)
            message = chunk_to_message(chunk)
            message.contribute = False
            self._client.forget_answers()
            self._send(message, group, number, rank, 1, 1)
            attempt = self._wait(group, number, 1, self._config.round_timeout)
            if attempt.blamed:
                _raise_if_too_large(attempt.blamed)
                return ReconstructionFailed(attempt.blamed[0].failure)
            if attempt.answers and not attempt.broken:
                return prediction_from_message(attempt.answers[chunk.index])
            after = group.generation
        return ReconstructionFailed(
            f"no worker answered for chunk {chunk.index} in {self._config.max_attempts} attempts"
        )

    def _send(
        self,
        message: ChunkMessage,
        group: ContextState,
        number: int,
        rank: int,
        share: int,
        size: int,
    ) -> None:
        message.run_id, message.generation, message.round = self._run_id, group.generation, number
        message.rank, message.world_size = rank, len(group.workers)
        message.share, message.round_size = share, size
        self._client.send(group.workers[rank], message)

    def _store(self):
        from scal3r_ros.workers.process_group import join_store

        address, _, port = self._client.state.rendezvous.rpartition(":")
        return join_store(address, int(port), self._config.store_timeout)

    def _new_key(self) -> str:
        return f"{self._run_id}/{next(self._keys)}"

    def _checked(self, answer) -> None:
        if not answer.success:
            raise ContextUnavailable(answer.message)


def _raise_if_too_large(answers: list[PredictionMessage]) -> None:
    for answer in answers:
        if answer.out_of_memory:
            raise OutOfDeviceMemory(answer.failure)


def _reason(attempt: _Attempt) -> str:
    failures = [a.failure for a in attempt.answers.values() if not a.success]
    return failures[0] if failures else "an answer did not come"
