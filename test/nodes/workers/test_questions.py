"""A question to workers that nobody answers is given up after so many attempts."""

import pytest

pytest.importorskip("rclpy", reason="rclpy is absent; run the tests with `make test`")
from crew import make_chunk

from scal3r_ros.config import DistributedConfig
from scal3r_ros.msg import ContextState
from scal3r_ros.nodes.workers.questions import Questions
from scal3r_ros.workers.hand_out import WorkersUnavailable


class SilentGroup:
    """Stands for the topics to one worker, which hears everything and says nothing."""

    def __init__(self) -> None:
        self.heard: list = []
        self.waited: list[float] = []

    def usable_group(self, after: int) -> ContextState:
        return ContextState(generation=after + 1, workers=["/worker"])

    def forget_answers(self) -> None:
        pass

    def send(self, worker: str, message) -> None:
        self.heard.append((worker, message.generation, message.contribute))

    def wait_for_answers(self, enough, generation: int, timeout: float) -> list:
        self.waited.append(timeout)
        return []


def test_attempts_and_waits_are_those_of_the_options():
    group = SilentGroup()
    questions = Questions(group, DistributedConfig(max_attempts=3, round_timeout=12.5))
    with pytest.raises(WorkersUnavailable, match="chunk 4 in 3 attempts"):
        questions.read(make_chunk(4))
    assert group.heard == [("/worker", generation, False) for generation in (1, 2, 3)]
    assert group.waited == [12.5] * 3
