"""Sends chunks to workers as messages and waits for their answers; a question is everything that is
sent under one number.

What the answers mean for the memory is decided in `workers/hand_out.py`.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Collection, Mapping

from scal3r_ros.config import DistributedConfig
from scal3r_ros.msg import Chunk as ChunkMessage
from scal3r_ros.msg import ChunkPrediction as PredictionMessage
from scal3r_ros.msg import ContextState
from scal3r_ros.nodes.workers.chunk_conversions import chunk_to_message, prediction_from_message
from scal3r_ros.nodes.workers.context_client import ContextClient
from scal3r_ros.reconstruct.interface import OutOfDeviceMemory, ReconstructionFailed
from scal3r_ros.records import Chunk
from scal3r_ros.workers.hand_out import Attempt, Fault, Result, WorkersUnavailable

_READS = 1 << 62  # numbers of questions that are in no round


class Questions:
    """Asks the workers of a group; to be used by one thread."""

    def __init__(self, client: ContextClient, config: DistributedConfig):
        self.client, self.config = client, config
        self.run_id = uuid.uuid4().hex
        self._reads = itertools.count(_READS)

    def send(
        self,
        message: ChunkMessage,
        group: ContextState,
        *,
        number: int,
        rank: int,
        share: int = 1,
        size: int = 1,
    ) -> None:
        """To the worker of `rank`, as one of its `share` chunks in a round of `size`."""
        message.run_id, message.generation, message.round = self.run_id, group.generation, number
        message.rank, message.world_size = rank, len(group.workers)
        message.share, message.round_size = share, size
        self.client.send(group.workers[rank], message)

    def answers(
        self, group: ContextState, numbers: Collection[int], count: int, keep_retries: bool
    ) -> dict[int, PredictionMessage]:
        """By chunk index, once there are `count`, the group has changed, or time is up. Without
        `keep_retries` the wait goes on for those who could not take part."""

        def relevant(found: list[PredictionMessage]) -> dict[int, PredictionMessage]:
            ours = [a for a in found if a.run_id == self.run_id and a.round in numbers]
            return {a.chunk_index: a for a in ours if keep_retries or not a.retry}

        found = self.client.wait_for_answers(
            lambda answers: len(relevant(answers)) == count,
            group.generation,
            self.config.round_timeout,
        )
        return relevant(found)

    def read(self, chunk: Chunk) -> Result:
        """A prediction from the committed memory, by any worker; `OutOfDeviceMemory` passes."""
        after, attempt = 0, Attempt()
        for _ in range(self.config.max_attempts):
            group = self.client.usable_group(after)
            number = next(self._reads)
            message = chunk_to_message(chunk)
            message.contribute = False
            self.client.forget_answers()
            self.send(message, group, number=number, rank=number % len(group.workers))
            found = self.answers(group, {number}, 1, keep_retries=True)
            for answer in found.values():
                if answer.out_of_memory:
                    raise OutOfDeviceMemory(answer.failure)
                if not answer.retry:
                    return prediction_from_message(answer)
            attempt = told(found)
            after = group.generation
        raise WorkersUnavailable(
            f"no worker answered for chunk {chunk.index} in {self.config.max_attempts} attempts; "
            f"last: {attempt.reason}"
        )


def told(answers: Mapping[int, PredictionMessage]) -> Attempt:
    """What answers tell about their chunks."""
    absorbed = {i: prediction_from_message(a) for i, a in answers.items() if a.absorbed}
    blamed = {i: _fault(a) for i, a in answers.items() if not (a.absorbed or a.retry)}
    reasons = [a.failure for a in answers.values() if a.retry]
    return Attempt(absorbed, blamed, reasons[0] if reasons else "an answer did not come")


def _fault(answer: PredictionMessage) -> Fault:
    kind = OutOfDeviceMemory if answer.out_of_memory else ReconstructionFailed
    return kind(answer.failure)
