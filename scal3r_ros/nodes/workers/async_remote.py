"""Reconstruction by workers without barrier: every chunk is numbered and travels for itself."""

from __future__ import annotations

from collections.abc import Sequence

from scal3r_ros.config import DistributedConfig
from scal3r_ros.msg import Chunk as ChunkMessage
from scal3r_ros.msg import ChunkPrediction as PredictionMessage
from scal3r_ros.msg import ContextState
from scal3r_ros.nodes.workers.chunk_conversions import chunk_to_message, prediction_from_message
from scal3r_ros.nodes.workers.context_client import ContextClient
from scal3r_ros.nodes.workers.remote_reconstructor import RemoteReconstructor, Result
from scal3r_ros.reconstruct.interface import ReconstructionFailed
from scal3r_ros.records import Chunk


class AsyncRemoteReconstructor(RemoteReconstructor):
    """A round is only what is handed out together; nobody in it waits for anybody."""

    def __init__(self, client: ContextClient, config: DistributedConfig, workers: int):
        super().__init__(client, config, workers)
        self._given_up: set[int] = set()

    def _reconstruct_round(self, chunks: Sequence[Chunk]) -> list[Result]:
        """A chunk whose worker was lost is sent again under its number, and contributes once."""
        numbers = {next(self._numbers): chunk for chunk in chunks}
        answers: dict[int, PredictionMessage] = {}
        after = 0
        try:
            for _ in range(self._config.max_attempts):
                group = self._client.usable_group(after)
                self._give_up_for_good(group)
                pending = {n: c for n, c in numbers.items() if n not in answers}
                self._client.forget_answers()
                for number, chunk in pending.items():
                    message = chunk_to_message(chunk)
                    message.place, message.contribute = number - min(numbers), True
                    self._send(message, group, number, number % len(group.workers), 1, 1)
                answers |= self._settled(group, pending)
                if len(answers) == len(numbers):
                    break
                self.redone += 1
                after = group.generation
        finally:
            self._given_up |= numbers.keys() - answers.keys()
        return [self._result(answers.get(number)) for number in numbers]

    def _give_up_for_good(self, group: ContextState) -> None:
        """Tell the workers which numbers will never come, so that none waits for them."""
        for number in sorted(self._given_up):
            void = ChunkMessage(contribute=True, place=number - min(self._given_up))
            self._send(void, group, number, 0, 0, 1)
        self._given_up.clear()

    def _settled(
        self, group: ContextState, pending: dict[int, Chunk]
    ) -> dict[int, PredictionMessage]:
        """Answers by number once all are there, the group has changed, or time is up."""

        def settled(found: list[PredictionMessage]) -> dict[int, PredictionMessage]:
            return {
                a.round: a
                for a in found
                if a.run_id == self._run_id and a.round in pending and not a.retry
            }

        def enough(found: list[PredictionMessage]) -> bool:
            return len(found) >= len(pending)

        wait = self._config.round_timeout
        return settled(self._client.wait_for_answers(enough, group.generation, wait))

    def _result(self, answer: PredictionMessage | None) -> Result:
        if answer is None:
            return ReconstructionFailed(
                f"no worker answered in {self._config.max_attempts} attempts"
            )
        return prediction_from_message(answer)
