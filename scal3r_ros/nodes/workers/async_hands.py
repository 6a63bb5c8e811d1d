"""Workers over ROS without barrier: every chunk has its own number and is absorbed under it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from scal3r_ros.msg import Chunk as ChunkMessage
from scal3r_ros.msg import ContextState
from scal3r_ros.nodes.workers.chunk_conversions import chunk_to_message
from scal3r_ros.nodes.workers.questions import Questions, told
from scal3r_ros.records import Chunk
from scal3r_ros.workers.hand_out import Attempt, Result


class AsyncHands:
    """Implements `Hands`. State: the numbers of chunks that are not settled, and of those that
    never will be."""

    all_or_none = False

    def __init__(self, questions: Questions):
        self._questions = questions
        self._numbers = itertools.count(1)
        self._open: dict[int, int] = {}
        """Number by chunk index."""
        self._given_up: set[int] = set()
        self._after = 0

    def attempt(self, chunks: Sequence[Chunk]) -> Attempt:
        """A chunk whose worker was lost goes out under its old number, and contributes once."""
        questions = self._questions
        group = questions.client.usable_group(self._after)
        self._declare_void(group)
        questions.client.forget_answers()
        for chunk in chunks:
            if chunk.index not in self._open:
                self._open[chunk.index] = next(self._numbers)
        oldest = min(self._open.values())
        numbers = {chunk.index: self._open[chunk.index] for chunk in chunks}
        for chunk in chunks:
            message, number = chunk_to_message(chunk), numbers[chunk.index]
            message.place, message.contribute = number - oldest, True
            questions.send(message, group, number=number, rank=number % len(group.workers))
        found = told(questions.answers(group, numbers.values(), len(chunks), keep_retries=False))
        for index in (*found.absorbed, *found.at_fault):
            del self._open[index]
        complete = len(found.absorbed) + len(found.at_fault) == len(chunks)
        self._after = 0 if complete else group.generation
        return found

    def has_absorbed(self) -> bool:
        """Never asked: a chunk that is handed out again counts once."""
        return False

    def read(self, chunk: Chunk) -> Result:
        return self._questions.read(chunk)

    def give_up(self, chunks: Sequence[Chunk]) -> None:
        """Their numbers will never come; the workers are told with the next attempt, so that none
        waits for them."""
        self._given_up |= {self._open.pop(c.index) for c in chunks if c.index in self._open}

    def _declare_void(self, group: ContextState) -> None:
        for number in sorted(self._given_up):
            void = ChunkMessage(contribute=True, place=number - min(self._given_up))
            self._questions.send(void, group, number=number, rank=0, share=0)
        self._given_up.clear()
