"""Saving now and then waits for the chunk in flight, and never twice."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS is absent")

from scal3r_ros.nodes.mapping.commands import MapCommands  # noqa: E402


class BusyWorker:
    """A worker whose commands wait until `finish`."""

    def __init__(self):
        self.mapper = SimpleNamespace(map_revision=1, next_frame_id=10)
        self.waiting = []

    def submit(self, command, reads=False):
        self.waiting.append(Future())
        return self.waiting[-1]


def test_at_most_one_autosave_waits_behind_a_long_chunk(tmp_path):
    worker = BusyWorker()
    autosave = SimpleNamespace(period=1e-9, path=str(tmp_path))
    session = SimpleNamespace(config=SimpleNamespace(autosave=autosave), worker=worker)
    commands = MapCommands(session)
    for _ in range(5):
        commands.autosave_if_due()
    assert len(worker.waiting) == 1
    worker.waiting[0].set_result({})
    commands.autosave_if_due()
    assert len(worker.waiting) == 2, "the map has changed since"
