"""Workers over ROS in lockstep: the chunks of an attempt are one numbered round."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from scal3r_ros.msg import Chunk as ChunkMessage
from scal3r_ros.msg import ContextState
from scal3r_ros.nodes.workers.chunk_conversions import chunk_to_message
from scal3r_ros.nodes.workers.questions import Questions, told
from scal3r_ros.records import Chunk
from scal3r_ros.workers.hand_out import Attempt, Result
from scal3r_ros.workers.shares import shares


class LockstepHands:
    """Implements `Hands`. State: the number of the last round, and the group that had it."""

    all_or_none = True

    def __init__(self, questions: Questions):
        self._questions = questions
        self._numbers = itertools.count(1)
        self._number = 0
        self._group: ContextState | None = None
        self._after = 0
        """Generation whose group could not do a round; another one is needed."""

    def attempt(self, chunks: Sequence[Chunk]) -> Attempt:
        questions = self._questions
        group = self._group = questions.client.usable_group(self._after)
        self._number = next(self._numbers)
        questions.client.forget_answers()
        for rank, share in enumerate(shares(len(chunks), len(group.workers))):
            own = chunks[share.offset : share.offset + share.count]
            messages = [chunk_to_message(chunk) for chunk in own] or [ChunkMessage()]  # joins only
            for place, message in enumerate(messages, start=share.offset):
                message.place, message.contribute = place, True
                questions.send(message, group, number=self._number, rank=rank, share=share.count,
                               size=len(chunks))  # fmt: skip
        answers = questions.answers(group, {self._number}, len(chunks), keep_retries=True)
        return told(answers)

    def has_absorbed(self) -> bool:
        """As the next group has agreed."""
        assert self._group is not None, "asked before the first attempt"
        self._after = self._group.generation
        following = self._questions.client.usable_group(self._after)
        return following.committed_round >= self._number

    def read(self, chunk: Chunk) -> Result:
        return self._questions.read(chunk)

    def give_up(self, chunks: Sequence[Chunk]) -> None:
        """Do nothing: a round that was not committed leaves no state here."""
